#include "race.h"

#include <cstdio>
#include <cstring>
#include <vector>

RaceLog races;

namespace {

std::vector<Segment> segments;
u32 phase; // how many barriers the whole block has passed

u32 segment_of(Thread *thread) {
    if (thread->segment == 0) {
        thread->segment = u32(segments.size());
        segments.push_back({block.index, thread->index, phase, thread->clock});
    }
    return thread->segment;
}

bool ordered(const Thread *thread, const Segment &past, const Moment *since) {
    if (past.block != block.index)
        return false;
    if (past.thread == thread->index || past.phase < (since ? since->phase : phase))
        return true;
    const u32 *known = since ? since->known : thread->known;
    return past.thread / 32 == thread->warp && past.clock <= known[past.thread % 32];
}

// Counts a race of this access with an earlier one, if it is one, and describes the first of a launch.
bool conflict(const Thread *thread, Access access, const Record &past, Access past_access,
              const Moment *since) {
    if (past.segment == 0 || past.segment == thread->segment ||
        ordered(thread, segments[past.segment], since))
        return false;
    const Segment &other = segments[past.segment];
    if (races.count++ == 0)
        std::snprintf(races.first, sizeof races.first,
                      "{%u}: %s by thread %u of block %u, not ordered with {%u}: %s by thread %u of block %u",
                      thread->statement, access_name(access), thread->index, block.index, past.statement,
                      access_name(past_access), other.thread, other.block);
    return true;
}

void remember_read(Shadow &byte, Record now) {
    const bool same_thread = byte.read.segment &&
                             segments[byte.read.segment].thread == segments[now.segment].thread &&
                             segments[byte.read.segment].block == segments[now.segment].block;
    if (!same_thread)
        byte.earlier_read = byte.read;
    byte.read = now;
}

} // namespace

void race_start_launch() {
    segments.assign(1, Segment{});
    races = RaceLog{};
}

void race_start_block() { phase = 0; }

void race_block_barrier() { ++phase; }

void race_warp_barrier(Thread *warp, u32 lanes) {
    u32 known[32] = {};
    for (u32 i = 0; i < 32; ++i)
        if (lanes >> i & 1) {
            warp[i].known[i] = warp[i].clock;
            for (u32 j = 0; j < 32; ++j)
                known[j] = known[j] < warp[i].known[j] ? warp[i].known[j] : known[j];
        }
    for (u32 i = 0; i < 32; ++i)
        if (lanes >> i & 1) {
            std::memcpy(warp[i].known, known, sizeof known);
            ++warp[i].clock;
            warp[i].segment = 0;
        }
}

Moment race_moment(const Thread *thread) {
    Moment moment{phase, {}};
    std::memcpy(moment.known, thread->known, sizeof moment.known);
    return moment;
}

void race_check(Thread *thread, Shadow *shadow, const u8 *memory, const void *value, u32 size, Access access,
                const Moment *since) {
    const Record now = {segment_of(thread), thread->statement};
    bool found = false; // one access counts once, whatever number of bytes it has
    for (u32 i = 0; i < size; ++i) {
        Shadow &byte = shadow[i];
        if (access == Access::write && byte.write.segment && memory[i] == static_cast<const u8 *>(value)[i])
            continue;
        found = found || conflict(thread, access, byte.write, Access::write, since);
        if (access != Access::atomic)
            found = found || conflict(thread, access, byte.atomic, Access::atomic, since);
        if (access == Access::read) {
            remember_read(byte, now);
            continue;
        }
        found = found || conflict(thread, access, byte.read, Access::read, since) ||
                conflict(thread, access, byte.earlier_read, Access::read, since);
        (access == Access::atomic ? byte.atomic : byte.write) = now;
        byte.read = byte.earlier_read = Record{};
    }
}
