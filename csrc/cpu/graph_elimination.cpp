// Elimination without subtraction for a sparse graph (cpu/elimination.h has the formulas).
//
// Plan     the unknown with the fewest neighbours goes first, of several the first: leaves, then chains,
//          as long as there are any. An unknown with m neighbours ties each of them to all others; new
//          ties go to the end of a row and are added up now and then. Where m is no longer small
//          against what is left, the rest is a dense system.
// Cost     Σ m² for what went; a forest costs its edges, n points of a plane about n^1.5.
// Bits     serial, and in an order that the graph alone decides.
#include "cpu/graph_elimination.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <queue>
#include <utility>
#include <vector>

#include "interrupt.h"

namespace mtlfast {
namespace {

constexpr double kPerTie = 16;       // operations of the dense elimination that one tie here costs
constexpr int64_t kMostCore = 4096;  // unknowns: 128 MiB
constexpr int64_t kMostTies = 1 << 25;  // in all rows: 512 MiB
constexpr double kDense = 6;            // unknowns left for each neighbour, where the core begins
constexpr std::size_t kShort = 64;      // ties of a row that is kept compact
constexpr int64_t kCheck = 1 << 14;     // ties between two checks for an interrupt

struct Tie {
  int32_t to;
  double weight;
};

}  // namespace

struct GraphElimination::Parts {
  std::vector<std::vector<Tie>> rows;
  std::vector<double> excess, inverse, factor;
  std::vector<int32_t> order, col, core;
  std::vector<int64_t> ptr{0};
  std::vector<int32_t> place;      // [n], 0 throughout but within compact
  std::vector<char> gone;          // [n]
  std::vector<std::size_t> whole;  // [n], size of the row when it was last compact
  int64_t ties = 0;                // in all rows
  int64_t done = 0;                // of ties, since the last check for an interrupt
  // size of its row and an unknown; those that are pushed again are left in the queue
  using Due = std::pair<int64_t, int32_t>;
  std::priority_queue<Due, std::vector<Due>, std::greater<Due>> due;
  bool complete = false, positive = true;

  void count_work(std::size_t ties) {
    done += int64_t(ties) + 1;
    if (done < kCheck) return;
    done = 0;
    check_interrupt();
  }

  void read(const int64_t* row_ptr, const int32_t* cols, const double* weight, int64_t n,
            double step) {
    rows.resize(std::size_t(n));
    excess.assign(std::size_t(n), 1.0);
    for (int64_t i = 0; i < n; ++i) {
      auto& row = rows[std::size_t(i)];
      row.reserve(std::size_t(row_ptr[i + 1] - row_ptr[i]));
      for (int64_t k = row_ptr[i]; k < row_ptr[i + 1]; ++k) {
        if (cols[k] == i || weight[k] == 0) continue;
        row.push_back({cols[k], tie_of(step, weight[k])});
      }
      count_work(row.size());
    }
  }

  // Adds up the ties of a row to the same unknown, and drops those to unknowns that went.
  void compact(int32_t i) {
    auto& row = rows[std::size_t(i)];
    count_work(row.size());
    std::size_t count = 0;
    for (const Tie& tie : row) {
      int32_t& at = place[std::size_t(tie.to)];
      if (gone[std::size_t(tie.to)]) continue;
      if (at > 0) {
        row[std::size_t(at - 1)].weight += tie.weight;
      } else {
        row[count++] = tie;
        at = int32_t(count);
      }
    }
    row.resize(count);
    for (const Tie& tie : row) place[std::size_t(tie.to)] = 0;
    whole[std::size_t(i)] = count;
  }

  // Unknown k, whose row is compact, goes.
  void remove(int32_t k) {
    const std::vector<Tie> row = std::move(rows[std::size_t(k)]);
    rows[std::size_t(k)].clear();
    gone[std::size_t(k)] = 1;
    double pivot = excess[std::size_t(k)];
    for (const Tie& tie : row) pivot += tie.weight;
    positive = positive && pivot > 0;
    order.push_back(k);
    inverse.push_back(1 / pivot);
    for (const Tie& tie : row) {
      count_work(row.size());
      const double f = tie.weight * inverse.back();
      col.push_back(tie.to);
      factor.push_back(f);
      excess[std::size_t(tie.to)] += f * excess[std::size_t(k)];
      auto& other = rows[std::size_t(tie.to)];
      const std::size_t before = other.size();
      for (const Tie& third : row) {
        if (third.to != tie.to) other.push_back({third.to, f * third.weight});
      }
      // a hub's row is not gone through for every neighbour of it that goes
      if (other.size() <= kShort || other.size() > 2 * whole[std::size_t(tie.to)]) compact(tie.to);
      ties += int64_t(other.size()) - int64_t(before);
      due.push({int64_t(other.size()), tie.to});
    }
    ties -= int64_t(row.size());
    ptr.push_back(int64_t(col.size()));
  }

  void run(int64_t n, double most) {
    place.assign(std::size_t(n), 0);
    gone.assign(std::size_t(n), 0);
    whole.assign(std::size_t(n), 0);
    for (int64_t i = 0; i < n; ++i) {
      compact(int32_t(i));
      ties += int64_t(rows[std::size_t(i)].size());
      due.push({int64_t(rows[std::size_t(i)].size()), int32_t(i)});
    }
    int64_t left = n;
    for (double work = 0; left > 0;) {
      const auto [degree, k] = due.top();
      if (gone[std::size_t(k)] || degree != int64_t(rows[std::size_t(k)].size())) {
        due.pop();  // it was pushed again since
        continue;
      }
      compact(k);
      const double neighbours = double(rows[std::size_t(k)].size());
      work += kPerTie * neighbours * neighbours;
      const double core = neighbours * kDense >= double(left) ? double(left) : 0;
      if (ties > kMostTies || core > kMostCore || work + core * core * core / 6 > most) return;
      if (core > 0) break;
      due.pop();
      remove(k);
      --left;
    }
    for (int64_t i = 0; i < n; ++i) {
      if (!gone[std::size_t(i)]) core.push_back(int32_t(i));
    }
    for (const int32_t i : core) compact(i);
    complete = true;
  }
};

GraphElimination::GraphElimination(const int64_t* row_ptr, const int32_t* col, const double* weight,
                                   int64_t n, double step, double most) {
  std::unique_ptr<Parts> parts(new Parts);  // no destructor is called for what throws here
  parts->read(row_ptr, col, weight, n, step);
  parts->run(n, most);
  parts_ = parts.release();
}

GraphElimination::~GraphElimination() { delete parts_; }

bool GraphElimination::complete() const { return parts_->complete; }
bool GraphElimination::positive() const { return parts_->positive; }
int64_t GraphElimination::count() const { return int64_t(parts_->order.size()); }
const int32_t* GraphElimination::order() const { return parts_->order.data(); }
const double* GraphElimination::inverse() const { return parts_->inverse.data(); }
const int64_t* GraphElimination::ptr() const { return parts_->ptr.data(); }
const int32_t* GraphElimination::col() const { return parts_->col.data(); }
const double* GraphElimination::factor() const { return parts_->factor.data(); }
int64_t GraphElimination::core_size() const { return int64_t(parts_->core.size()); }
const int32_t* GraphElimination::core() const { return parts_->core.data(); }

void GraphElimination::fill_core(double* ties, double* excess) const {
  const auto& core = parts_->core;
  const std::size_t m = core.size();
  std::fill(ties, ties + m * m, 0.0);
  for (std::size_t a = 0; a < m; ++a) {
    excess[a] = parts_->excess[std::size_t(core[a])];
    for (const Tie& tie : parts_->rows[std::size_t(core[a])]) {
      const auto place = std::lower_bound(core.begin(), core.end(), tie.to) - core.begin();
      if (std::size_t(place) < a) ties[a * m + std::size_t(place)] += tie.weight;
    }
  }
}

}  // namespace mtlfast
