#include "collectives.h"
#include "floating.h"
#include "launch.h"
#include "race.h"

#include <algorithm>

namespace {

u32 bits_below(u32 count) { return count >= 32 ? ~0u : (1u << count) - 1; }

// The lane that a shuffle reads, and whether it is in range; else the lane itself (PTX ISA, shfl.sync).
u32 shuffle_source(const Thread &thread, bool &in_range) {
    const s32 lane = s32(thread.lane), operand = s32(thread.lane_operand & 31),
              clamp = s32(thread.clamp & 31);
    const s32 segment = s32(thread.clamp >> 8 & 31);
    const s32 last = (lane & segment) | (clamp & ~segment), first = lane & segment;
    s32 source = 0;
    switch (thread.kind) {
    case Collective::shuffle_up:
        source = lane - operand;
        in_range = source >= last;
        break;
    case Collective::shuffle_down:
        source = lane + operand;
        in_range = source <= last;
        break;
    case Collective::shuffle_bfly:
        source = lane ^ operand;
        in_range = source <= last;
        break;
    default:
        source = first | (operand & ~segment);
        in_range = source <= last;
    }
    return u32(in_range ? source : lane);
}

u32 combined(Collective kind, u32 a, u32 b) {
    switch (kind) {
    case Collective::reduce_add:
        return a + b;
    case Collective::reduce_min_u:
        return std::min(a, b);
    case Collective::reduce_max_u:
        return std::max(a, b);
    case Collective::reduce_min_s:
        return u32(std::min(s32(a), s32(b)));
    case Collective::reduce_max_s:
        return u32(std::max(s32(a), s32(b)));
    case Collective::reduce_min_f:
        return bits(minimum_number(as_float(a), as_float(b)));
    case Collective::reduce_max_f:
        return bits(maximum_number(as_float(a), as_float(b)));
    case Collective::reduce_min_f_nan:
        return bits(minimum_nan(as_float(a), as_float(b)));
    case Collective::reduce_max_f_nan:
        return bits(maximum_nan(as_float(a), as_float(b)));
    case Collective::reduce_and:
        return a & b;
    case Collective::reduce_or:
        return a | b;
    default:
        return a ^ b;
    }
}

// The lanes that hold the same value as this one.
u32 equal_lanes(const Thread *warp, u32 lanes, const Thread &thread) {
    u32 equal = 0;
    for (u32 i = 0; i < 32; ++i)
        if (lanes >> i & 1 && warp[i].value == thread.value && warp[i].value_high == thread.value_high)
            equal |= 1u << i;
    return equal;
}

void complete(Thread *warp, u32 lanes) {
    const u32 first = u32(__builtin_ctz(lanes));
    const Collective kind = warp[first].kind;
    u32 votes = 0, reduction = warp[first].value;
    for (u32 i = first; i < 32; ++i)
        if (lanes >> i & 1) {
            votes |= u32(warp[i].value != 0) << i;
            if (i != first)
                reduction = combined(kind, reduction, warp[i].value);
        }
    for (u32 i = first; i < 32; ++i) {
        if (!(lanes >> i & 1))
            continue;
        Thread &thread = warp[i];
        switch (kind) {
        case Collective::shuffle_up:
        case Collective::shuffle_down:
        case Collective::shuffle_bfly:
        case Collective::shuffle_idx: {
            const u32 source = shuffle_source(thread, thread.predicate);
            if (!(lanes >> source & 1))
                fail(&thread, "shuffle reads lane %u, which is not in the mask 0x%x or has exited", source,
                     thread.mask);
            thread.result = warp[source].value;
            break;
        }
        case Collective::vote_all:
            thread.result = votes == lanes;
            break;
        case Collective::vote_any:
            thread.result = votes != 0;
            break;
        case Collective::vote_uni:
            thread.result = votes == 0 || votes == lanes;
            break;
        case Collective::vote_ballot:
            thread.result = votes;
            break;
        case Collective::match_any:
            thread.result = equal_lanes(warp, lanes, thread);
            break;
        case Collective::match_all:
            thread.predicate = equal_lanes(warp, lanes, thread) == lanes;
            thread.result = thread.predicate ? lanes : 0;
            break;
        case Collective::elect:
            thread.result = first;
            thread.predicate = i == first;
            break;
        case Collective::warp_barrier:
            break;
        default:
            thread.result = reduction;
        }
    }
    if (kind == Collective::warp_barrier && options.race)
        race_warp_barrier(warp, lanes);
    for (u32 i = first; i < 32; ++i)
        if (lanes >> i & 1)
            warp[i].state = State::runnable;
}

// The mask's lanes that have not exited, if all of them are at this lane's operation; else 0.
u32 complete_lanes(const Thread *warp, u32 lanes, const Thread &thread) {
    u32 here = 0;
    for (u32 i = 0; i < lanes; ++i) {
        if (!(thread.mask >> i & 1) || warp[i].state == State::finished)
            continue;
        if (warp[i].state != State::at_collective || warp[i].kind != thread.kind ||
            warp[i].mask != thread.mask)
            return 0;
        here |= 1u << i;
    }
    return here;
}

// The threads that wait at one barrier.
struct Waiting {
    u32 threads, count, votes;
    const Thread *first;
};

// bar.sync asks that all threads of a warp that have not exited execute it together.
void require_converged(Thread *threads, u32 count, u32 id) {
    const Thread *of_warp = nullptr;
    for (u32 i = 0; i < count; ++i) {
        Thread &thread = threads[i];
        if (thread.state != State::at_barrier || thread.barrier != id || !thread.barrier_aligned)
            continue;
        if (of_warp && of_warp->warp == thread.warp && of_warp->statement != thread.statement)
            fail(&thread, "threads of one warp are at different aligned barriers: {%u}", of_warp->statement);
        of_warp = &thread;
    }
}

} // namespace

u32 collective(Thread *thread, u32 statement, Collective kind, u32 mask, u32 value, u32 value_high) {
    thread->statement = statement;
    thread->kind = kind;
    thread->mask = mask;
    thread->value = value;
    thread->value_high = value_high;
    if (!(mask >> thread->lane & 1))
        fail(thread, "the mask 0x%x lacks the lane that calls, %u", mask, thread->lane);
    thread->state = State::at_collective;
    yield(thread);
    return thread->result;
}

u32 shuffle(Thread *thread, u32 statement, Collective kind, u32 mask, u32 value, u32 lane, u32 clamp) {
    thread->lane_operand = lane;
    thread->clamp = clamp;
    return collective(thread, statement, kind, mask, value);
}

void barrier(Thread *thread, u32 statement, bool aligned, u32 id, u32 count, BarrierResult result,
             bool predicate) {
    thread->statement = statement;
    if (id > 15 || count % 32)
        fail(thread, "barrier %u for %u threads: 16 barriers exist, for whole warps", id, count);
    thread->barrier = id;
    thread->barrier_count = count;
    thread->barrier_aligned = aligned;
    thread->barrier_result = result;
    thread->barrier_predicate = predicate;
    thread->state = State::at_barrier;
    yield(thread);
}

bool complete_collectives(Thread *warp, u32 lanes) {
    bool any = false;
    for (u32 i = 0; i < lanes; ++i) {
        if (warp[i].state != State::at_collective)
            continue;
        const u32 here = complete_lanes(warp, lanes, warp[i]);
        if (here == 0)
            continue;
        ++counters.collectives;
        if (here != (warp[i].mask & bits_below(lanes)))
            ++counters.collectives_with_exited;
        complete(warp, here);
        any = true;
    }
    return any;
}

bool complete_barriers(Thread *threads, u32 count) {
    Waiting waiting[16] = {};
    u32 live = 0;
    for (u32 i = 0; i < count; ++i) {
        const Thread &thread = threads[i];
        live += thread.state != State::finished;
        if (thread.state != State::at_barrier)
            continue;
        Waiting &here = waiting[thread.barrier];
        if (here.threads++ == 0)
            here.first = &thread;
        here.votes += thread.barrier_predicate;
    }
    bool any = false;
    for (u32 id = 0; id < 16; ++id) {
        const Waiting &here = waiting[id];
        if (here.threads == 0)
            continue;
        const u32 needed = here.first->barrier_count ? here.first->barrier_count : live;
        if (here.threads != needed)
            continue;
        require_converged(threads, count, id);
        ++counters.barriers;
        if (here.first->barrier_count == 0 && live != count)
            ++counters.barriers_with_exited;
        if (options.race && here.threads == live)
            race_block_barrier();
        for (u32 i = 0; i < count; ++i) {
            Thread &thread = threads[i];
            if (thread.state != State::at_barrier || thread.barrier != id)
                continue;
            const BarrierResult result = thread.barrier_result;
            thread.result = result == BarrierResult::popc  ? here.votes
                            : result == BarrierResult::all ? here.votes == here.threads
                                                           : here.votes != 0;
            thread.state = State::runnable;
            thread.segment = here.threads == live ? 0 : thread.segment;
        }
        any = true;
    }
    return any;
}
