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

}  // namespace autosparse
