// One launch: what Python hands over, what comes back, and the state that the runtime shares meanwhile.
#pragma once
#include "memory.h"
#include "thread.h"

// Counted over all threads of a launch.
struct Counters {
    u64 instructions, collectives, barriers, races, barriers_with_exited, collectives_with_exited;
};
extern Counters counters;

struct Options {
    u32 race;
    u32 order; // 0: threads and blocks in order, 1: the other way round, 2: by chance
    u64 seed;
    double jitter;
};
extern Options options;

u32 random_number();

// The same structure in kernel.py.
struct LaunchArguments {
    u32 grid[3], block[3];
    u32 dynamic_shared, params_size;
    const u8 *params;
    u64 stack_size;
    const Range *ranges;
    u64 range_count;
    Options options;
    Counters counters;
    char message[4096];
};

// What the generated code says about its kernel.
struct Program {
    void (*kernel)(Thread *);
    u32 static_shared, dynamic_offset, local_size;
    const Range *variables;
    u32 variable_count;
};

// Runs all blocks, one after another. false: message says what went wrong; else it describes the first race.
bool launch(LaunchArguments *arguments, const Program *program);
