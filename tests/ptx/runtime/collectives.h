// What the lanes of a warp do together, and the barriers of a block.
#pragma once
#include "thread.h"

// Stops the lane until all lanes of the mask that have not exited are at the same operation. Returns the
// lane's result; its predicate is thread->predicate.
u32 collective(Thread *thread, u32 statement, Collective kind, u32 mask, u32 value = 0, u32 value_high = 0);
u32 shuffle(Thread *thread, u32 statement, Collective kind, u32 mask, u32 value, u32 lane, u32 clamp);

// count 0: all threads of the block that have not exited. The result of bar.red is thread->result.
void barrier(Thread *thread, u32 statement, bool aligned, u32 id, u32 count,
             BarrierResult result = BarrierResult::none, bool predicate = false);

// For the scheduler: completes what has all its lanes, or threads; false if there was nothing to complete.
bool complete_collectives(Thread *warp, u32 lanes);
bool complete_barriers(Thread *threads, u32 count);
