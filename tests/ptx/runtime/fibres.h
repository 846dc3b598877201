// Stacks that can be left and come back to: one a CUDA thread.
#pragma once
#include "types.h"

// Leaves this stack, whose place is put in *from, for the one whose place is `to`.
extern "C" void switch_stack(void **from, void *to);

// A fresh stack: the first switch to the returned place calls `start`, which must not return.
void *new_stack(u8 *memory, u64 size, void (*start)());

// Memory for stacks, of which only what is touched takes room.
class StackMemory {
  public:
    explicit StackMemory(u64 size);
    ~StackMemory();
    StackMemory(const StackMemory &) = delete;

    u8 *memory;

  private:
    u64 size;
};
