/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least of a virtio-scsi driver: one command at a time, polled, through the legacy I/O window and one queue.
 *
 * Source: Virtual I/O Device 1.1, 2.6 (split virtqueues), 4.1.4.8 (legacy PCI), 5.6 (SCSI host); SBC-3, READ CAPACITY (16).
 * Included by guest.c, whose port helpers it uses.
 */

enum {
    LUNS = 2,
    GUEST_FEATURES = 0x04,
    QUEUE_ADDRESS = 0x08,
    QUEUE_SIZE = 0x0C,
    QUEUE_SELECT = 0x0E,
    QUEUE_NOTIFY = 0x10,
    DEVICE_STATUS = 0x12,
    REQUEST_QUEUE = 2, /* after control and event */
    PAGE = 4096,
    QUEUE_MAX = 1024, /* QEMU 10 has as many entries, older ones fewer */
    RING_BYTES = 9 * PAGE, /* of QUEUE_MAX entries */
    NEXT = 1,     /* descriptor: another follows */
    WRITABLE = 2, /* descriptor: the device writes it */
    SPINS = 50000000,
    CHECK_CONDITION = 2,
    UNIT_ATTENTION = 6,
};

static const uint32_t VIRTIO_SCSI = 0x10041AF4;

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct request {
    uint8_t lun[8];
    uint64_t id;
    uint8_t attribute, priority, crn, cdb[32];
} __attribute__((packed));

struct response {
    uint32_t sense_length, residual;
    uint16_t qualifier;
    uint8_t status, response, sense[96];
} __attribute__((packed));

static uint8_t ring[RING_BYTES] __attribute__((aligned(4096)));
static struct request request;
static struct response response;
static uint8_t answer[32];
static uint16_t scsi_port, queue_size;
static int scsi_found;

static inline void outw(uint16_t port, uint16_t value) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void start_scsi(uint16_t port)
{
    outb(port + DEVICE_STATUS, 0);
    outb(port + DEVICE_STATUS, 1 | 2); /* seen, and there is a driver */
    outl(port + GUEST_FEATURES, 0);
    outw(port + QUEUE_SELECT, REQUEST_QUEUE);
    queue_size = inw(port + QUEUE_SIZE);
    if (queue_size == 0 || queue_size > QUEUE_MAX)
        return;
    outl(port + QUEUE_ADDRESS, (uint32_t)ring / PAGE);
    outb(port + DEVICE_STATUS, 1 | 2 | 4);
    scsi_port = port;
    scsi_found = 1;
}

static void find_scsi(void)
{
    for (uint32_t slot = 0; slot < 32 && !scsi_found; slot++) {
        if (pci_read(slot, 0, 0x00) != VIRTIO_SCSI)
            continue;
        uint32_t command = pci_read(slot, 0, 0x04);
        outl(PCI_DATA, command | 1 | 4); /* I/O space and bus mastering on */
        start_scsi((uint16_t)(pci_read(slot, 0, 0x10) & ~3U));
    }
}

/* Send a command without data or with an answer; whether the device took it. */
static int scsi_command(int lun, const uint8_t *command, uint32_t answer_length)
{
    struct descriptor *descriptors = (struct descriptor *)ring;
    volatile uint16_t *available = (volatile uint16_t *)(ring + 16U * queue_size);
    uint32_t used_at = (16U * queue_size + 6 + 2U * queue_size + PAGE - 1) / PAGE * PAGE;
    volatile uint16_t *used = (volatile uint16_t *)(ring + used_at);
    uint16_t before = used[1];

    request.lun[0] = 1;
    request.lun[1] = 0;
    request.lun[2] = 0x40;
    request.lun[3] = (uint8_t)lun;
    for (int i = 0; i < 16; i++)
        request.cdb[i] = command[i];
    response.response = 0xFF;
    descriptors[0] = (struct descriptor){(uint32_t)&request, sizeof request, NEXT, 1};
    descriptors[1] =
        (struct descriptor){(uint32_t)&response, sizeof response, answer_length ? NEXT | WRITABLE : WRITABLE, 2};
    descriptors[2] = (struct descriptor){(uint32_t)answer, answer_length, WRITABLE, 0};
    available[2 + available[1] % queue_size] = 0;
    __asm__ volatile("" : : : "memory");
    available[1]++;
    outw(scsi_port + QUEUE_NOTIFY, REQUEST_QUEUE);
    for (uint32_t spins = 0; used[1] == before && spins < SPINS; spins++)
        __asm__ volatile("pause");
    __asm__ volatile("" : : : "memory");
    return used[1] != before && response.response == 0;
}

/* Whether the LUN has a unit attention for us: its capacity has changed. It says so once. */
static int scsi_says_changed(int lun)
{
    static const uint8_t test_unit_ready[16];
    return scsi_command(lun, test_unit_ready, 0) && response.status == CHECK_CONDITION &&
           (response.sense[2] & 0x0F) == UNIT_ATTENTION && response.sense[12] == 0x2A && response.sense[13] == 0x09;
}

/* Bytes of a LUN; 0 where there is none, or it has something else to say first (a unit attention): ask again. */
static uint64_t scsi_capacity(int lun)
{
    static const uint8_t read_capacity[16] = {
        0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, sizeof answer}; /* SERVICE ACTION IN (16), READ CAPACITY (16) */
    if (!scsi_command(lun, read_capacity, sizeof answer) || response.status != 0)
        return 0;
    uint64_t last = 0;
    uint32_t block = 0;
    for (int i = 0; i < 8; i++)
        last = last << 8 | answer[i];
    for (int i = 8; i < 12; i++)
        block = block << 8 | answer[i];
    return (last + 1) * block;
}
