// Where the machine begins, and how it sees memory. By Linux's 64-bit boot protocol RSI points to the zero page, and
// interrupts are off. They stay off: there is no table of handlers, and none is needed by a program that only polls.
    .section .text.start, "ax"
    .globl _start
_start:
    movabs $pageMap, %rax
    mov %rax, %cr3
    movabs $stackTop, %rsp
    mov %rsi, %rdi
    call guestMain
1:  hlt
    jmp 1b

// Virtual addresses are physical ones, of the first GiB (memory) and the fourth one (devices, uncached). What the loader
// has mapped is less, and differs between its versions.
    .data
    .balign 4096
pageMap:
    .quad firstGiBs + 0x3
    .fill 511, 8, 0
firstGiBs:
    .quad memoryPages + 0x3, 0, 0, devicePages + 0x3
    .fill 508, 8, 0
memoryPages:                    // present, writable, 2 MiB
    .set number, 0
    .rept 512
    .quad (number << 21) + 0x83
    .set number, number + 1
    .endr
devicePages:                    // the same, uncached
    .rept 512
    .quad ((number + 1024) << 21) + 0x93
    .set number, number + 1
    .endr

    .bss
    .balign 16
    .skip 65536
stackTop:

    .section .note.GNU-stack, "", @progbits
