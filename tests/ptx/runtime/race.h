// The race detector: two accesses to one byte, one of them a write, by threads that nothing orders. What
// orders two threads of a block is a barrier that all of the block's threads reach, and within a warp
// bar.warp.sync; a shuffle or a vote does not, as CUDA gives no such promise. Nothing orders two blocks.
// Atomic operations do not race with each other. A write of the value that another plain write has put there
// is forgiven.
#pragma once
#include "thread.h"

enum class Access : u32 { read, write, atomic };

inline const char *access_name(Access access) {
    return access == Access::read ? "read" : access == Access::write ? "write" : "atomic operation";
}

// One access: in which stretch of which thread's execution, and by which PTX statement. 0: none yet.
struct Record {
    u32 segment, statement;
};

// The last accesses to one byte, the reads by two different threads.
struct Shadow {
    Record write, atomic, read, earlier_read;
};

// A stretch of a thread's execution between two points where it meets others.
struct Segment {
    u32 block, thread, phase, clock;
};

struct RaceLog {
    u64 count;
    char first[512];
};
extern RaceLog races;

void race_start_launch();
void race_start_block();
void race_block_barrier();
void race_warp_barrier(Thread *warp, u32 lanes);

// What a thread has seen of the others' past at some point.
struct Moment {
    u32 phase, known[32];
};
Moment race_moment(const Thread *thread);

// Looks at an access to `size` bytes at `memory`. value: what a write is about to put there. since: an
// asynchronous access may have happened at any time since then; an earlier access is ordered if it was so at
// that point.
void race_check(Thread *thread, Shadow *shadow, const u8 *memory, const void *value, u32 size, Access access,
                const Moment *since = nullptr);
