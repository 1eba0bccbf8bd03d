// Chooses the threads that keep a row, by its length: some lanes of a warp, a block, or a cluster
// of blocks. A resident row is read once and written once. A row too long for any cluster is
// streamed, or passes through rings.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fusegen/row_plan.cuh"

namespace fusegen {

// Streams rows. Each row gets as many blocks as possible: the fewer rows are in flight at a time,
// the more of them the L2 cache still holds when the next stage reads them. Where a resident form
// would keep rows of another width, these may be short: then each thread gets four accesses, if
// there are enough rows to fill the chip.
inline RowPlan stream_rows(const RowNeeds& needs, int cluster) {
  RowPlan plan{};
  const auto shorter = [&] { return needs.cols < int64_t(cluster) * 512 * 4 * needs.width; };
  while (!needs.keeps_long && cluster > 1 && shorter() &&
         needs.rows * cluster >= 4 * int64_t(chip().multiprocessors)) {
    cluster /= 2;
  }
  plan.form = cluster > 1 ? RowForm::streamed_cluster : RowForm::streamed;
  plan.width = needs.width;
  plan.cluster = cluster;
  plan.threads = dim3(512);
  return plan;
}

// The most blocks that share a row.
inline int most_blocks(const RowNeeds& needs) {
  return chip().clusters ? std::min(needs.cluster, 16) : 1;
}

// Lets rows pass through rings. If no more than eight blocks can hold half of a row, it gets as few
// of them as can: what is held is not read again. A longer row gets one block, because the others
// would have to wait for each other. Few rows get as many blocks as fill the chip.
inline RowPlan choose_ring(const RowNeeds& needs) {
  RowPlan plan{};
  const size_t room = size_t(chip().shared_bytes) - 3072;
  const int most = most_blocks(needs);
  int threads = 512 * std::clamp(needs.resident, 1, 2);
  plan.form = RowForm::ring;
  plan.width = needs.width;
  RingWalk& walk = plan.walk;
  const auto spread = [&](int blocks) {
    plan.cluster = blocks;
    walk.stretch = ring_stretch(needs.cols, needs.width, 32 * needs.step, blocks);
    const int64_t across = int64_t(threads) * needs.step;
    walk.steps = int((walk.stretch + across - 1) / across);
    const size_t slot = std::max<size_t>(threads * needs.step_bytes, 1);
    walk.slots = int(std::min<size_t>(room / slot, size_t(walk.steps)));
    plan.shared = walk.slots * slot;
  };
  spread(1);
  while ((threads > 256 && walk.steps == 1) || (threads > 32 && walk.slots == 0)) {
    threads /= 2;
    spread(1);
  }
  const auto holds_half = [&] { return 2 * walk.slots >= walk.steps; };
  while (plan.cluster < std::min(most, 8) && !holds_half()) spread(2 * plan.cluster);
  if (!holds_half()) spread(1);
  const auto too_long = [&] { return walk.stretch > INT32_MAX / 2; };  // for offsets of 32 bits
  const auto fills = [&] { return needs.rows * plan.cluster >= chip().multiprocessors; };
  while (plan.cluster < most && ((!fills() && walk.steps > 1) || too_long()))
    spread(2 * plan.cluster);
  plan.threads = dim3(unsigned(threads));
  if (too_long()) plan.shared = INT32_MAX;  // more than any chip has: the launch fails
  return plan;
}

// Whether a row that is read only once is best streamed by one block, and how: it need not be kept.
// If it is reduced, each thread gets many accesses, which amortizes the work per row, as long as
// there are enough rows to fill the chip. If there are too few for eight accesses each, blocks
// share rows.
inline bool stream_once(const RowNeeds& needs, RowPlan& plan) {
  for (int accesses = needs.reduces ? 32 : 8; needs.once && accesses >= 8; accesses /= 2) {
    const int64_t each = needs.width * accesses, lanes = (needs.cols + each - 1) / each;
    const int64_t threads = std::clamp<int64_t>(lanes / 32 * 32, 64, 512);
    if (needs.rows * threads >= int64_t(chip().multiprocessors) * 1024) {
      plan = stream_rows(needs, 1);
      plan.threads = dim3(unsigned(threads));
      return true;
    }
  }
  return false;
}

// Whether some lanes of a warp take a row, and how: several rows share a block.
//
// Of a row's accesses a lane takes one, or several lanes fewer. Lanes without a part of the row
// wait for the others, and each row has a few instructions of its own: both cost less if lanes take
// several. With two tensors in flight that pays for the waiting lanes alone, and not for short
// rows; with channels to find, for shorter ones. Rows of which one number is left, and nothing
// else, are bound by instructions most.
inline bool choose_lanes(const RowNeeds& needs, RowPlan& plan) {
  constexpr int block = 256;  // threads
  const int64_t accesses = needs.lanes(1, 1);
  if (needs.rows > INT32_MAX || needs.lanes(needs.tiles ? 1 : needs.warp_items, 1) > 32)
    return false;
  int each = 1, several = 4;  // lanes with an access each, and with several
  while (each < accesses) each *= 2;
  while (several < needs.lanes(needs.warp_items, 1)) several *= 2;
  const auto fills = [&](int lanes, int threads) {
    return needs.rows * lanes >= int64_t(chip().multiprocessors) * threads;
  };
  const bool waiting = each > accesses, one_tensor = needs.tensors == 1;
  const bool reduced = needs.once && needs.reduces && accesses > 8 && fills(8, 8192);
  const bool pays =
      waiting ? each > (one_tensor ? 4 : 8) : one_tensor && each > (needs.ring ? 4 : 8);
  if (reduced) several = std::max(several, 8);
  plan.form = RowForm::warp;
  if (each > 32) {
    each = fills(several, 2048) ? several : 32;
  } else if (!needs.tiles && several < each && (reduced || (pays && fills(several, 2048)))) {
    each = several;
  } else {
    plan.form = RowForm::brief;
  }
  const size_t ahead = needs.ahead + needs.sums + needs.lane_runs;
  plan.single = needs.single_warp;
  plan.threads = dim3(unsigned(each), unsigned(block / each));
  plan.shared = plan.single ? 0 : ahead * block;
  if (plan.form == RowForm::warp) plan.shared *= needs.warp_items;
  return true;
}

// Chooses the form of a row, the shortest rows first.
inline RowPlan choose_rows(const RowNeeds& needs) {
  RowPlan plan{};
  plan.width = needs.width;
  plan.cluster = 1;
  if (choose_lanes(needs, plan)) return plan;
  // Prefer one block, even a large one: the blocks of a cluster wait for each other. Otherwise
  // prefer small blocks: a multiprocessor holds two that hide each other's latency.
  const auto blocks = [&](RowForm form, int items, int cluster, int most, size_t sums) {
    const int64_t threads = (needs.lanes(items, cluster) + 31) / 32 * 32;
    const bool single = form == RowForm::block && needs.single_block;
    const size_t ahead = single ? 0 : needs.ahead;
    const size_t shared = (ahead + sums) * size_t(items) * size_t(threads);
    if (threads > most || int64_t(shared) > chip().shared_bytes - 3072) return false;
    plan.form = form;
    plan.single = single;
    plan.cluster = cluster;
    plan.threads = dim3(unsigned(threads));
    plan.shared = shared;
    return true;
  };
  if (stream_once(needs, plan)) return plan;
  const int most = most_blocks(needs);
  const auto sums = [&](int threads, int blocks, int items) {
    const int elements = items * needs.width;
    const bool live = has_live_sums(threads, blocks, elements, needs.live_sums, needs.bytes);
    return (live ? 0 : needs.sums) + needs.run_sums;
  };
  const auto is_resident = [&] {
    const int full = needs.threads, shared_out = needs.cluster_items;
    const auto block = [&](RowForm form, int items, int most, int resident) {
      return blocks(form, items, 1, most, sums(most, resident, items));
    };
    const auto by_block = [&] {
      if (block(RowForm::block, needs.items, 512, needs.resident)) return true;
      if (!needs.keeps_long) return false;
      if (block(RowForm::large_block, needs.large_items, full, 1)) return true;
      return needs.full_items > needs.large_items &&
             block(RowForm::full_block, needs.full_items, full, 1);
    };
    if (!needs.tiles && by_block()) return true;  // what a tile does not hold, no block holds
    if (!needs.keeps_long || needs.ring) return false;
    for (int cluster = 2; cluster <= most; cluster *= 2) {
      const int threads = cluster == most ? 512 : needs.preferred;
      if (blocks(RowForm::cluster, shared_out, cluster, threads,
                 sums(512, needs.resident, shared_out)))
        return true;
    }
    return most > 1 && !needs.tiles &&
           blocks(RowForm::large_cluster, shared_out, most, full, sums(full, 1, shared_out));
  };
  // A multiprocessor holds `each` blocks: one computes while another waits.
  const auto staged = [&](int cluster, int each) {
    const int64_t items = needs.lanes(staged_threads / each / 32 * 32, cluster);
    const int64_t threads = (needs.lanes(items, cluster) + 31) / 32 * 32;
    const size_t sums = needs.staged_items ? 0 : needs.sums + needs.run_sums;
    const size_t shared = (needs.ahead + sums) * size_t(items) * size_t(threads);
    if (each * (int64_t(shared) + 3072) > chip().shared_bytes) return false;
    if (needs.staged_items && items > needs.staged_items) return false;
    plan.form = cluster > 1 ? RowForm::staged_cluster : RowForm::staged;
    plan.single = false;
    plan.cluster = cluster;
    plan.threads = dim3(unsigned(threads));
    plan.shared = shared;
    return true;
  };
  if (needs.rows <= INT32_MAX) {
    const int holding_blocks = is_resident() ? plan.cluster : 2 * most;
    // Half as many blocks wait for each other half as long, which pays for computing values twice.
    for (int cluster = 1; needs.staged && 2 * cluster <= holding_blocks; cluster *= 2) {
      if (staged(cluster, 3) || staged(cluster, 2)) return plan;
    }
    if (holding_blocks <= most) return plan;
  }
  return needs.ring ? choose_ring(needs) : stream_rows(needs, most);
}

}  // namespace fusegen
