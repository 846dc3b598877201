// Fills the table of each codebook's posterior, for the forward pass of many rows.
#include "posterior.h"

namespace fqvae {
namespace {

// The codes of a node are shared by the threads of a warp.
struct CodesOfLane {
    int first;
    static constexpr int step = 32;
    __device__ __forceinline__ float sum(float mine) const { return sum_of_lanes(mine, 32); }
};

} // namespace

// A warp to a node. A codebook that has no table leaves its nodes as they are, and nobody reads them.
extern "C" __global__ void __launch_bounds__(kThreads)
    posterior_float(const __grid_constant__ PosteriorArguments args) {
    extern __shared__ __align__(16) unsigned char memory[];
    Block<float> block(args.call, args.launch, memory);
    block.survey(true);
    if (block.table.nodes == 0) // for all threads alike
        return;
    block.stage(0);
    __syncthreads();
    using L = DeviceLanes<float>;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int warps = static_cast<int>(gridDim.x) * kWarps;
    TableNode *nodes = static_cast<TableNode *>(args.table) + block.codebook() * kMostTableNodes;
    for (int i = static_cast<int>(blockIdx.x) * kWarps + warp; i < block.table.nodes; i += warps) {
        constexpr float step = static_cast<float>(kPosteriorStep);
        const float x = block.table.first + static_cast<float>(i) * step;
        const auto q = posterior_at<L>(block.codes(), args.call.codes, x, CodesOfLane{lane});
        if (lane == 0)
            nodes[i] = {q.value, q.slope * step, q.log2_partition, 2 * q.mean_offset * step};
    }
}

} // namespace fqvae
