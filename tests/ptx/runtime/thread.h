// A CUDA thread, the block that runs, and how a thread stops or reports a fault.
#pragma once
#include "types.h"

enum class State : u32 { runnable, at_collective, at_barrier, finished };

// Operations of a warp. Lanes meet when kind and mask agree.
enum class Collective : u32 {
    shuffle_up,
    shuffle_down,
    shuffle_bfly,
    shuffle_idx,
    vote_all,
    vote_any,
    vote_uni,
    vote_ballot,
    match_any,
    match_all,
    warp_barrier,
    reduce_add,
    reduce_min_u,
    reduce_max_u,
    reduce_min_s,
    reduce_max_s,
    reduce_min_f,
    reduce_max_f,
    reduce_min_f_nan,
    reduce_max_f_nan,
    reduce_and,
    reduce_or,
    reduce_xor,
    elect,
};

enum class BarrierResult : u32 { none, popc, all, any };

struct Thread {
    void *stack_pointer;
    u32 tid[3];
    u32 index, lane, warp; // in the block, in the warp, of the block
    State state;
    u32 statement; // number of the PTX statement under way; Python knows its line
    u64 instructions;
    u32 jumps_back; // since this thread last let others run

    // At a collective: what the lane brings, and what it takes away.
    Collective kind;
    u32 mask, value, value_high, lane_operand, clamp;
    u32 result;
    bool predicate;

    // At a barrier.
    u32 barrier, barrier_count;
    bool barrier_aligned, barrier_predicate;
    BarrierResult barrier_result;

    // Local memory: one arena a thread, taken and given back by the functions that it is in.
    u8 *local;
    u32 local_used;

    // For the race detector: how often this lane has met others at bar.warp.sync, and how much of every
    // lane's past it has seen through them. segment numbers the stretch of execution since; 0 until something
    // is accessed in it.
    u32 clock, known[32], segment;
};

struct Block {
    u32 ntid[3], nctaid[3], ctaid[3];
    u32 index, threads;
    u8 *shared;
    u32 shared_size, dynamic_offset, dynamic_size;
    const u8 *params;
    u32 params_size;
};
extern Block block;

// Lets the scheduler run another thread.
void yield(Thread *thread);

// Ends the launch with a message. Does not return.
[[noreturn]] void fail(Thread *thread, const char *format, ...) __attribute__((format(printf, 2, 3)));

[[noreturn]] void exit_thread(Thread *thread, u32 statement);

// Called when a thread has jumped back 65,536 times: it may wait for another one.
void long_loop(Thread *thread, u32 statement);

inline void jump_back(Thread *thread, u32 statement) {
    if (++thread->jumps_back >= 1u << 16)
        long_loop(thread, statement);
}
