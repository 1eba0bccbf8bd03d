// How a call of the stagewise form is dealt to blocks: the walk of a pass, and who joins its parts.
#pragma once

#include "fusegen/forms/gpu_stagewise_parts.cuh"

namespace fusegen {
namespace {

// The plan for a call: the width of an access, the walk, and the grid of a pass.
template <class D, class L, class S>
struct StagewisePlan : PartialCounts {
  using P = GpuParts<D, S>;
  // What is known of eight rows would take the registers of half the threads.
  static constexpr int wide = std::min(16 / int(sizeof(S)), 4);
  // How many accesses to each tensor a thread has in flight in a pass that computes some stages.
  template <class Stages>
  static constexpr int in_flight = std::clamp(
      64 / (wide * int(sizeof(S)) * std::max(1, decltype(used<Stages>(typename P::Fulls{}))::size)),
      1, 8);

  int width;
  StageWalk walk;
  dim3 threads, grid;
  dim3 joining;  // the threads that join the parts of rows, blockDim.x of them each
  unsigned joined_by;

  explicit StagewisePlan(const typename D::Args& args) {
    walk.inner = uint32_t(args.inner);
    walk.run = uint32_t(run_in_place<D>(args));
    walk.matrices = args.rows / walk.rows();
    walk.by_sample = false;
    if constexpr (has_channels<P>) walk.by_sample = channels_of<P>(args) > args.inner;
    walk.places = args.cols / walk.run;
    const bool even = walk.matrices == 1 || walk.elements() % wide == 0;
    width = even && P::template vectorisable<true>(args, wide) ? wide : 1;
    walk.together = uint32_t(step_of_walk(args.inner, width, walk.elements()));
    walk.steps = walk.elements() / walk.together;
    const int64_t columns = walk.together / width;
    unsigned across = 1;
    while (across < 32 && across < columns) across *= 2;
    threads = dim3(across, 256 / across);
    walk.strands = threads.y;
  }

  // Deals the walk to blocks, of which the chip holds `resident` at a time.
  void deal(const typename D::Args& args, int64_t resident) {
    const int64_t columns = walk.together / width, across = threads.x;
    const int64_t tiles = (columns + across - 1) / across;
    const int64_t turns =
        std::clamp<int64_t>(4 * resident / tiles, 1, std::min<int64_t>(walk.matrices, 65535));
    walk.slices = uint32_t(slices_of(tiles * turns, resident));
    grid = dim3(unsigned(tiles), walk.slices, unsigned(turns));
    const int64_t parts_of_row = walk.together / walk.inner * int64_t(walk.run) * walk.slices;
    joining = parts_of_row < 1024 ? dim3(32, 8) : dim3(256);
    joined_by = unsigned(std::min<int64_t>((args.rows + joining.y - 1) / joining.y, 1 << 20));
    blocks = std::max<int64_t>(joined_by, tiles * turns * walk.slices);
  }

  // In how many slices blocks take a matrix, if one slice takes `blocks`: as many as fill the chip
  // once, or more where that leaves much of it empty. A thread should have two batches, though.
  int64_t slices_of(int64_t blocks, int64_t resident) const {
    const int64_t batches = walk.steps / (int64_t(walk.strands) * in_flight<typename P::AllStages>);
    const int64_t most =
        std::clamp<int64_t>(std::min(batches / 2, 4 * resident / blocks), 1, 65535);
    const int64_t once = std::clamp<int64_t>(resident / blocks, 1, most);
    int64_t best = once;
    double fullest = 0;
    for (int64_t slices = once; slices <= std::min(most, once + 64); ++slices) {
      const int64_t waves = (slices * blocks + resident - 1) / resident;
      const double full = double(slices * blocks) / double(waves * resident);
      if (full > fullest + 0.03) {
        fullest = full;
        best = slices;
      }
    }
    return best;
  }

  // The parts of the sums by channel: a row of channels from each place of a step, from each block.
  int64_t runs(int64_t, int64_t) const {
    return (walk.by_sample ? walk.matrices : int64_t(grid.z)) * grid.y * walk.together;
  }
  int64_t parts(int64_t) const { return 1; }
  int64_t side_by_side(int64_t) const { return walk.inner; }

  // How many numbers of the workspace the stages share.
  int64_t shared(int64_t rows) const {
    return rows * ReducedIn<typename P::AllStages>::size +
           walk.parts() * most_reductions(StagesOf<D>{});
  }
};

}  // namespace
}  // namespace fusegen
