#include "launch.h"
#include "collectives.h"
#include "fibres.h"

#include <algorithm>
#include <cfenv>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

Block block;
Counters counters;
Options options;

namespace {

struct Failure {};

// How often threads may come back from long loops with nothing else going on before one is said to wait for
// ever.
const u32 patience = 5000;

void (*kernel)(Thread *);
Thread *running; // null while the scheduler runs
void *scheduler_stack;
bool failed;
char message[4096];
u64 random_state;

[[noreturn]] void finish(Thread *thread) {
    finish_all_copies(thread);
    thread->state = State::finished;
    yield(thread);
    std::abort();
}

void start() {
    kernel(running);
    finish(running);
}

void describe(const char *text) { std::snprintf(message, sizeof message, "%s", text); }

// Orders that the scheduler tries the warps and the lanes in.
template <class T> void arrange(std::vector<T> &order) {
    std::iota(order.begin(), order.end(), T(0));
    if (options.order == 1)
        std::reverse(order.begin(), order.end());
    if (options.order >= 2)
        for (size_t i = order.size(); i > 1; --i)
            std::swap(order[i - 1], order[random_number() % i]);
}

class BlockRun {
  public:
    BlockRun(std::vector<Thread> &threads, u8 *stacks, u64 stack_size, u8 *local, u32 local_size)
        : threads(threads), warps((threads.size() + 31) / 32) {
        for (u32 i = 0; i < threads.size(); ++i) {
            Thread &thread = threads[i] = Thread{};
            thread.index = i;
            thread.lane = i % 32;
            thread.warp = i / 32;
            thread.clock = 1;
            thread.tid[0] = i % block.ntid[0];
            thread.tid[1] = i / block.ntid[0] % block.ntid[1];
            thread.tid[2] = i / (block.ntid[0] * block.ntid[1]);
            thread.local = local + u64(i) * local_size;
            thread.stack_pointer = new_stack(stacks + i * stack_size, stack_size, start);
        }
    }

    // Runs until all threads have exited.
    void run() {
        for (;;) {
            bool progress = false;
            arrange(warps);
            for (const u32 warp : warps)
                progress |= run_warp(warp);
            if (std::all_of(threads.begin(), threads.end(), finished))
                break;
            progress |= complete_barriers(threads.data(), u32(threads.size()));
            if (!progress)
                deadlock();
        }
        for (const Thread &thread : threads)
            counters.instructions += thread.instructions;
    }

  private:
    static bool finished(const Thread &thread) { return thread.state == State::finished; }

    // Runs the lanes of a warp, and what they do together, until none can go on. By chance only once: then
    // another warp may come in between.
    bool run_warp(u32 warp) {
        Thread *const lanes = &threads[warp * 32];
        const u32 count = std::min<u32>(32, u32(threads.size()) - warp * 32);
        bool progress = false, again = true;
        order.resize(count);
        while (again) {
            arrange(order);
            for (const u32 lane : order)
                if (lanes[lane].state == State::runnable) {
                    run_lane(lanes[lane]);
                    progress = true;
                }
            again = complete_collectives(lanes, count);
            progress |= again;
            again &= options.order < 2;
        }
        return progress;
    }

    void run_lane(Thread &thread) {
        running = &thread;
        switch_stack(&scheduler_stack, thread.stack_pointer);
        running = nullptr;
        if (failed)
            throw Failure();
        if (thread.state != State::runnable)
            idle = 0;
        else if (++idle > patience)
            fail(&thread, "the thread seems to loop for ever");
    }

    [[noreturn]] void deadlock() {
        u32 blocked = 0;
        for (const Thread &thread : threads)
            blocked += thread.state != State::finished;
        int used = std::snprintf(message, sizeof message,
                                 "deadlock in block %u, %u threads wait:", block.index, blocked);
        u32 shown = 0;
        for (const Thread &thread : threads) {
            if (thread.state == State::finished)
                continue;
            used += std::snprintf(message + used, sizeof message - used, "\n  thread %u at {%u}",
                                  thread.index, thread.statement);
            if (thread.state == State::at_collective)
                used += std::snprintf(message + used, sizeof message - used, " with mask 0x%x", thread.mask);
            if (++shown == 8)
                break;
        }
        throw Failure();
    }

    std::vector<Thread> &threads;
    std::vector<u32> warps, order;
    u32 idle = 0;
};

void run_blocks(const LaunchArguments &arguments, const Program &program) {
    std::vector<Thread> threads(block.threads);
    const StackMemory stacks(arguments.stack_size * block.threads);
    const u32 local_size = (program.local_size + 15) / 16 * 16;
    const StackMemory local(u64(local_size) * block.threads + 1);
    if (!stacks.memory || !local.memory) {
        describe("no memory for the threads' stacks");
        throw Failure();
    }
    std::vector<u8> shared(block.shared_size + 128);
    block.shared = reinterpret_cast<u8 *>((u64(shared.data()) + 127) & ~u64(127));

    std::vector<u32> blocks(u64(block.nctaid[0]) * block.nctaid[1] * block.nctaid[2]);
    arrange(blocks);
    race_start_launch();
    for (const u32 index : blocks) {
        block.index = index;
        block.ctaid[0] = index % block.nctaid[0];
        block.ctaid[1] = index / block.nctaid[0] % block.nctaid[1];
        block.ctaid[2] = index / (block.nctaid[0] * block.nctaid[1]);
        start_block_memory(options.race);
        race_start_block();
        BlockRun(threads, stacks.memory, arguments.stack_size, local.memory, local_size).run();
    }
}

} // namespace

u32 random_number() { // Knuth's 64-bit linear congruence, the better half
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return u32(random_state >> 33);
}

void yield(Thread *thread) { switch_stack(&thread->stack_pointer, scheduler_stack); }

void fail(Thread *thread, const char *format, ...) {
    char text[1024];
    va_list values;
    va_start(values, format);
    std::vsnprintf(text, sizeof text, format, values);
    va_end(values);
    std::snprintf(message, sizeof message, "{%u}: %s (thread %u,%u,%u of block %u,%u,%u)", thread->statement,
                  text, thread->tid[0], thread->tid[1], thread->tid[2], block.ctaid[0], block.ctaid[1],
                  block.ctaid[2]);
    if (running == nullptr)
        throw Failure();
    failed = true;
    yield(running);
    std::abort();
}

void exit_thread(Thread *thread, u32 statement) {
    thread->statement = statement;
    finish(thread);
}

void long_loop(Thread *thread, u32 statement) {
    thread->statement = statement;
    thread->jumps_back = 0;
    yield(thread);
}

bool launch(LaunchArguments *arguments, const Program *program) {
    block = Block{};
    std::copy_n(arguments->block, 3, block.ntid);
    std::copy_n(arguments->grid, 3, block.nctaid);
    block.threads = block.ntid[0] * block.ntid[1] * block.ntid[2];
    block.dynamic_offset = program->dynamic_offset;
    block.dynamic_size = arguments->dynamic_shared;
    block.shared_size =
        block.dynamic_size ? block.dynamic_offset + block.dynamic_size : program->static_shared;
    block.params = arguments->params;
    block.params_size = arguments->params_size;
    options = arguments->options;
    counters = Counters{};
    random_state = options.seed;
    random_number();
    kernel = program->kernel;
    failed = false;
    message[0] = 0;

    std::vector<Range> ranges(arguments->ranges, arguments->ranges + arguments->range_count);
    ranges.insert(ranges.end(), program->variables, program->variables + program->variable_count);
    set_ranges(ranges.data(), u32(ranges.size()), options.race);

    std::fenv_t environment; // the caller may flush subnormals, or round otherwise
    std::fegetenv(&environment);
    std::fesetenv(FE_DFL_ENV);
    bool complete = true;
    try {
        run_blocks(*arguments, *program);
        describe(races.first);
    } catch (const Failure &) {
        complete = false;
    }
    std::fesetenv(&environment);
    set_ranges(nullptr, 0, false);
    counters.races = races.count;
    arguments->counters = counters;
    std::memcpy(arguments->message, message, sizeof message);
    return complete;
}
