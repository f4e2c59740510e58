mtype:state = { DUE, DISPATCHED, CLOSED };
#define DONE 1
#define RETRY 4
#define CLOSE 1
#define FAIL 2
#define AGAIN 3
#define NEWER 4
#define NOTE 5
#define IGNORE 6
#define settle_move(o,ended,mine,open,older,superseded,siblings) ((ended || !mine) -> IGNORE : (!open -> NOTE : (o == DONE -> (older -> NEWER : CLOSE) : ((superseded || siblings) -> NOTE : AGAIN))))
