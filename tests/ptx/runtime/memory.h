// Access to memory: every address is checked for its buffer, its alignment and, where asked for, races.
// Buffers and constants are at their address in this process; shared memory begins at address 0 of its own
// space and at block.shared of the generic one.
#pragma once
#include "race.h"
#include "thread.h"

enum class Space : u32 { generic, global, constant, shared, local, param };

// Where a load or an atomic operation may access memory.
u8 *checked(Thread *thread, Space space, u64 address, u32 size, u32 alignment, u32 statement, Access access);

void store(Thread *thread, Space space, u64 address, const void *value, u32 size, u32 statement);

inline bool in_shared(u64 address) { return address - u64(block.shared) < block.shared_size; }
inline bool in_local(const Thread *thread, u64 address) {
    return address - u64(thread->local) < thread->local_used;
}

// Local memory of one function call, filled with ones: NaN where nobody wrote.
class LocalFrame {
  public:
    LocalFrame(Thread *thread, u32 size)
        : thread(thread), before(thread->local_used), memory(thread->local + thread->local_used) {
        thread->local_used += size;
        __builtin_memset(memory, 0xff, size);
    }
    ~LocalFrame() { thread->local_used = before; }
    LocalFrame(const LocalFrame &) = delete;

  private:
    Thread *thread;
    u32 before;

  public:
    u8 *memory;
};

// cp.async: checked and done as late as PTX allows, when the thread waits for it or exits.
void copy_later(Thread *thread, u64 shared, u64 global, u32 size, u32 source_size, u32 statement);
void commit_copies(Thread *thread);
void finish_copies(Thread *thread, u32 groups_left); // all groups but the last ones
void finish_all_copies(Thread *thread);              // those of no group too

// For the launch.
struct Range {
    u64 low, high; // bytes [low, high)
    u32 writable;
};
void set_ranges(const Range *ranges, u32 count, bool with_shadow);
void start_block_memory(bool with_shadow);
