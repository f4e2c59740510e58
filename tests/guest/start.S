# SPDX-License-Identifier: Apache-2.0
# The way in: a multiboot header, flat segments, a stack, one interrupt (the timer), then C.

        .set    MAGIC, 0x1BADB002

        .section .text
        .globl  _start
        .globl  on_timer
        .balign 4
        .long   MAGIC, 0, -MAGIC

_start:
        cli
        movl    $stack_top, %esp
        lgdt    gdt_pointer
        ljmp    $0x08, $flat
flat:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        pushl   %ebx            # the boot loader's information
        call    watch_disks
halted:
        hlt
        jmp     halted

# Nothing but waking the CPU from hlt; the interrupt controller wants to be told that it was seen.
on_timer:
        pushl   %eax
        movb    $0x20, %al
        outb    %al, $0x20
        popl    %eax
        iret

        .section .data
        .balign 8
gdt:
        .quad   0
        .quad   0x00CF9A000000FFFF
        .quad   0x00CF92000000FFFF
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt

        .section .bss
        .balign 16
        .skip   8192
stack_top:

        .section .note.GNU-stack, "", @progbits
