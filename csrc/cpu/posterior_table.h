// The tabulated posterior of a codebook (row/posterior.h): filling it, reading it, and the way back for
// gradients.
//
// A row's KL and its derivative are cubic Hermite interpolations between two nodes. What its KL sends to the
// codebook is a sum over rows of h f_k(z), f_k = dKL/dm[k]; interpolating f_k the same way, the sum over rows
// can be taken first: each row leaves h times its four basis values at its two nodes, and only the nodes meet
// the codes.
#pragma once

#include <cstring>

#include "../row/posterior.h"
#include "kernel_table.h"

namespace fqvae {
namespace {

template <class L> class PosteriorTable {
    using Real = typename L::Real;
    using F = typename L::F;
    using M = typename L::M;
    using U = typename L::U;
    static constexpr int width = L::width;

  public:
    using Place = TablePlace<L>;

    // The table holds two pairs of numbers for each node: f and f' step, and behind all of these f' step and
    // f'' step^2.
    explicit PosteriorTable(const Codebook &codebook)
        : codes_(static_cast<const Real *>(codebook.scaled)), table_(static_cast<Real *>(codebook.posterior)),
          nodes_(codebook.posterior_nodes), first_(static_cast<Real>(codebook.posterior_first)) {}

    void fill(int codes) {
        constexpr Real step = kPosteriorStep;
        for (int i = 0; i < nodes_; i += width) {
            const auto q = posterior_at<L>(codes_, codes, nodes_from(i));
            Real value[width], slope[width], curvature[width];
            L::store(value, q.value);
            L::store(slope, q.slope);
            L::store(curvature, q.curvature);
            for (int j = 0; j < width && i + j < nodes_; ++j) {
                Real *first = table_ + 2 * (i + j), *second = first + 2 * nodes_;
                first[0] = value[j];
                first[1] = second[0] = slope[j] * step;
                second[1] = curvature[j] * step * step;
            }
        }
    }

    // x: centred and scaled z.
    Place locate(F x) const { return Place(x, first_, nodes_); }

    // The KL in bits, less log2 of the number of codes.
    F value(const Place &place) const { return interpolate(place, 0); }
    // Its derivative by x.
    F slope(const Place &place) const {
        return interpolate(place, 1) * L::set(static_cast<Real>(1 / kPosteriorStep));
    }

    // Leaves the rows' weights at their nodes: weights[2 i] for the value at node i, weights[2 i + 1] for the
    // slope.
    static void deposit(const Place &place, F weight, Real *weights) {
        const Hermite<L> basis(place.at);
        uint32_t node[width];
        L::store_word(node, place.node);
        Real parts[4 * width]; // four neighbours in memory for each row
        L::transpose4(weight * basis.of[0], weight * basis.of[1], weight * basis.of[2], weight * basis.of[3],
                      parts);
        FQVAE_UNROLL
        for (int i = 0; i < width; ++i) {
            Real *at_node = weights + 2 * node[i], sum[4];
            memcpy(sum, at_node, sizeof sum);
            for (int b = 0; b < 4; ++b)
                sum[b] += parts[4 * L::transposed_row(i) + b];
            memcpy(at_node, sum, sizeof sum);
        }
    }

    // The codebook's gradient, in scaled units, of what was left at the nodes; added to sums[k * width +
    // lane].
    void gradient(int codes, const double *weights, Real *sums) const {
        for (int i = 0; i < nodes_; i += width) {
            Real value[width] = {}, slope[width] = {};
            for (int j = 0; j < width && i + j < nodes_; ++j) {
                value[j] = static_cast<Real>(weights[2 * (i + j)]);
                slope[j] = static_cast<Real>(weights[2 * (i + j) + 1] * kPosteriorStep);
            }
            posterior_gradient<L>(codes_, codes, nodes_from(i), L::load(value), L::load(slope), sums);
        }
    }

  private:
    F interpolate(const Place &place, int pair) const {
        F four[4]; // value and slope at the node below and at the node above
        L::gather4(table_ + pair * 2 * nodes_, place.node, four);
        return Hermite<L>(place.at)(four[0], four[1], four[2], four[3]);
    }

    F nodes_from(int i) const {
        Real x[width];
        for (int j = 0; j < width; ++j)
            x[j] = first_ + static_cast<Real>((i + j) * kPosteriorStep);
        return L::load(x);
    }

    const Real *codes_;
    Real *table_;
    int nodes_;
    Real first_;
};

} // namespace
} // namespace fqvae
