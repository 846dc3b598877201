#include "memory.h"
#include "launch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

namespace {

struct Free {
    void operator()(void *memory) const { std::free(memory); }
};

// Zeroed, but by pages that are only there once touched.
typedef std::unique_ptr<Shadow[], Free> Shadows;
Shadows new_shadows(u64 size) {
    return Shadows(static_cast<Shadow *>(std::calloc(size + 1, sizeof(Shadow))));
}

struct Region {
    u64 low, high;
    bool writable;
    Shadow *shadow; // of the byte at low; null without the race detector
};
std::vector<Region> regions;
std::vector<Shadows> global_shadows;
std::vector<Shadow> shared_shadow;

struct Copy {
    u64 shared, global;
    u32 size, source_size, statement, group;
    Moment issued;
};
struct Copies {
    std::deque<Copy> pending;
    u32 groups = 0; // committed so far
};
std::vector<Copies> copies; // of every thread

[[noreturn]] void stray(Thread *thread, const char *space, u64 address, u32 size, Access access) {
    fail(thread, "%s of %u bytes out of bounds: %s address 0x%llx", access_name(access), size, space,
         (unsigned long long)address);
}

u8 *in_shared_space(Thread *thread, u64 address, u32 size, Access access, const void *value,
                    const Moment *since = nullptr) {
    const u32 offset = u32(address); // addresses of shared memory have 32 bits
    if (u64(offset) + size > block.shared_size)
        stray(thread, "shared", offset, size, access);
    u8 *memory = block.shared + offset;
    if (options.race)
        race_check(thread, &shared_shadow[offset], memory, value, size, access, since);
    return memory;
}

u8 *in_a_buffer(Thread *thread, u64 address, u32 size, Access access, const void *value,
                const Moment *since = nullptr) {
    const auto holds = [&](const Region &region) {
        return address >= region.low && address + size <= region.high;
    };
    // A buffer may be given twice, once to read and once to write.
    const Region *found = nullptr;
    for (const Region &region : regions)
        if (holds(region)) {
            found = &region;
            if (access == Access::read || region.writable)
                break;
        }
    if (found == nullptr)
        stray(thread, "global", address, size, access);
    if (access != Access::read && !found->writable)
        fail(thread, "%s of %u bytes in a read-only buffer: address 0x%llx", access_name(access), size,
             (unsigned long long)address);
    u8 *memory = reinterpret_cast<u8 *>(address);
    if (found->shadow)
        race_check(thread, found->shadow + (address - found->low), memory, value, size, access, since);
    return memory;
}

u8 *look_up(Thread *thread, Space space, u64 address, u32 size, u32 alignment, Access access,
            const void *value) {
    if (address % alignment)
        fail(thread, "misaligned %s of %u bytes: address 0x%llx", access_name(access), size,
             (unsigned long long)address);
    const bool generic = space == Space::generic;
    if (space == Space::shared)
        return in_shared_space(thread, address, size, access, value);
    if (generic && in_shared(address))
        return in_shared_space(thread, address - u64(block.shared), size, access, value);
    if (space == Space::local || (generic && in_local(thread, address))) {
        if (!in_local(thread, address) || !in_local(thread, address + size - 1))
            stray(thread, "local", address, size, access);
        return reinterpret_cast<u8 *>(address);
    }
    const u64 param = address - u64(block.params);
    if (space == Space::param || (generic && param < block.params_size)) {
        if (param + size > block.params_size || access != Access::read)
            stray(thread, "parameter", address, size, access);
        return reinterpret_cast<u8 *>(address);
    }
    return in_a_buffer(thread, address, size, access, value);
}

void perform(Thread *thread, const Copy &copy) {
    u8 bytes[16] = {};
    thread->statement = copy.statement;
    if (copy.source_size) {
        const u8 *from =
            in_a_buffer(thread, copy.global, copy.source_size, Access::read, nullptr, &copy.issued);
        std::memcpy(bytes, from, copy.source_size);
    }
    u8 *to = in_shared_space(thread, copy.shared, copy.size, Access::write, bytes, &copy.issued);
    std::memcpy(to, bytes, copy.size);
}

} // namespace

u8 *checked(Thread *thread, Space space, u64 address, u32 size, u32 alignment, u32 statement, Access access) {
    thread->statement = statement;
    return look_up(thread, space, address, size, alignment, access, nullptr);
}

void store(Thread *thread, Space space, u64 address, const void *value, u32 size, u32 statement) {
    thread->statement = statement;
    std::memcpy(look_up(thread, space, address, size, size, Access::write, value), value, size);
}

void copy_later(Thread *thread, u64 shared, u64 global, u32 size, u32 source_size, u32 statement) {
    thread->statement = statement;
    if ((size != 4 && size != 8 && size != 16) || source_size > size)
        fail(thread, "cp.async of %u bytes from a source of %u", size, source_size);
    if (shared % size || (source_size && global % size))
        fail(thread, "misaligned cp.async of %u bytes", size);
    Copies &mine = copies[thread->index];
    mine.pending.push_back({shared, global, size, source_size, statement, mine.groups, race_moment(thread)});
}

void commit_copies(Thread *thread) { ++copies[thread->index].groups; }

void finish_copies(Thread *thread, u32 groups_left) {
    Copies &mine = copies[thread->index];
    while (!mine.pending.empty() && mine.pending.front().group + groups_left < mine.groups) {
        perform(thread, mine.pending.front());
        mine.pending.pop_front();
    }
}

void finish_all_copies(Thread *thread) {
    commit_copies(thread);
    finish_copies(thread, 0);
}

void set_ranges(const Range *ranges, u32 count, bool with_shadow) {
    regions.clear();
    global_shadows.clear();
    for (u32 i = 0; i < count; ++i)
        if (ranges[i].high > ranges[i].low)
            regions.push_back({ranges[i].low, ranges[i].high, ranges[i].writable != 0, nullptr});
    std::sort(regions.begin(), regions.end(), [](const Region &a, const Region &b) { return a.low < b.low; });
    if (!with_shadow)
        return;
    // Buffers that overlap share their shadow: a race is a race whichever pointer it comes through.
    for (size_t first = 0; first < regions.size();) {
        size_t last = first;
        u64 high = regions[first].high;
        while (last + 1 < regions.size() && regions[last + 1].low < high)
            high = std::max(high, regions[++last].high);
        global_shadows.push_back(new_shadows(high - regions[first].low));
        for (size_t i = first; i <= last; ++i)
            regions[i].shadow = global_shadows.back().get() + (regions[i].low - regions[first].low);
        first = last + 1;
    }
}

void start_block_memory(bool with_shadow) {
    std::memset(block.shared, 0xff, block.shared_size); // NaN where nobody wrote
    shared_shadow.assign(with_shadow ? block.shared_size : 0, Shadow{});
    copies.assign(block.threads, Copies{});
}
