#include "fibres.h"

#include <cstdlib>
#include <sys/mman.h>

#if !defined(__x86_64__)
#error "the switch between stacks is written for x86-64 only"
#endif

// Saves the registers that a call must keep (System V ABI), and takes up the other stack's.
asm(R"(
    .text
    .globl switch_stack
    .hidden switch_stack
switch_stack:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

void *new_stack(u8 *memory, u64 size, void (*start)()) {
    u64 *top = reinterpret_cast<u64 *>(u64(memory + size) & ~u64(63));
    *--top =
        0; // where start would return to; also puts the stack where the ABI wants it at a function's entry
    *--top = u64(start);
    for (int i = 0; i < 6; ++i)
        *--top = 0;
    return top;
}

StackMemory::StackMemory(u64 size) : size(size) {
    void *got =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    memory = got == MAP_FAILED ? nullptr : static_cast<u8 *>(got);
}

StackMemory::~StackMemory() {
    if (memory)
        munmap(memory, size);
}
