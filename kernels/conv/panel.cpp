#include "conv/panel.h"

#include <algorithm>

namespace autosparse {

Panel lay_out_panel(std::vector<ptrdiff_t> planes, const std::vector<int32_t> &tap_plane,
                    const std::vector<int32_t> &tap_shift, ptrdiff_t span) {
    Panel panel;
    const auto [least, most] = std::minmax_element(tap_shift.begin(), tap_shift.end());
    panel.planes = std::move(planes);
    panel.reach_before = -static_cast<ptrdiff_t>(*least);
    panel.length = (span + *most - *least + 31) / 32 * 32;
    // An odd number of cache lines spreads the planes over all sets of the caches.
    panel.plane = (panel.length / 16 | 1) * 16;
    panel.pair = panel.plane * static_cast<ptrdiff_t>(panel.planes.size());
    for (std::size_t t = 0; t < tap_shift.size(); ++t)
        panel.taps.push_back(static_cast<int32_t>(tap_plane[t] * panel.plane + tap_shift[t]));
    return panel;
}

namespace {

constexpr ptrdiff_t kLine = 16;  // pairs per cache line

ptrdiff_t line_before(ptrdiff_t pairs) {
    return pairs >= 0 ? pairs / kLine * kLine : -((-pairs + kLine - 1) / kLine * kLine);
}

// Finds or adds the set of copies that a kernel row reads; gives its number.
std::size_t set_of_row(std::vector<ptrdiff_t> &planes, const std::vector<ptrdiff_t> &row) {
    std::size_t at = 0;
    const auto differs = [&] {
        return !std::equal(row.begin(), row.end(), planes.begin() + static_cast<ptrdiff_t>(at));
    };
    while (at < planes.size() && differs()) at += row.size();
    if (at == planes.size()) planes.insert(planes.end(), row.begin(), row.end());
    return at / row.size();
}

}  // namespace

Panel lay_out_matrix_panel(const std::vector<ptrdiff_t> &planes, const std::vector<int32_t> &tap_plane,
                           const std::vector<int32_t> &tap_shift, int row_taps, int pairs, ptrdiff_t span) {
    Panel panel;
    panel.copies = row_taps;
    const auto copies = static_cast<std::size_t>(row_taps);
    std::vector<ptrdiff_t> set_of, lines;  // of every kernel row
    for (std::size_t t = 0; t < tap_shift.size(); t += copies) {
        lines.push_back(line_before(tap_shift[t]));
        std::vector<ptrdiff_t> row;
        for (std::size_t i = t; i < t + copies; ++i)
            row.push_back(planes[static_cast<std::size_t>(tap_plane[i])] + tap_shift[i] - lines.back());
        set_of.push_back(static_cast<ptrdiff_t>(set_of_row(panel.planes, row)));
    }
    const auto [least, most] = std::minmax_element(lines.begin(), lines.end());
    panel.reach_before = -*least;
    panel.length = (span + *most - *least + 31) / 32 * 32;
    panel.plane = panel.pair = (panel.length / kLine | 1) * kLine;
    panel.row_set = pairs * panel.pair;
    for (std::size_t row = 0; row < lines.size(); ++row)
        panel.taps.push_back(static_cast<int32_t>(set_of[row] * panel.row_set + lines[row]));
    return panel;
}

}  // namespace autosparse
