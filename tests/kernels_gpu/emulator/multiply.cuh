// wgmma.mma_async.sp m64nNk32 of the emulated machine: 9.7.15.6.3 of NVIDIA's PTX ISA 9.1.
#pragma once

struct WgmmaOperands {
    float* d;
    u64 a, b;
    u32 words;
};

// 9.7.15.5.1.2: a matrix in shared memory, K-major, rows of 128 (mode 1) or 64 bytes (mode 2), of which
// bits 4 and on of an address are exchanged by bits 7 and on.
struct SharedMatrix {
    u32 start, eight_rows, row_bytes, mask;

    explicit SharedMatrix(u64 descriptor)
        : start((descriptor & 0x3fff) << 4), eight_rows((descriptor >> 32 & 0x3fff) << 4) {
        const u32 mode = descriptor >> 62, base_offset = descriptor >> 49 & 7;
        machine::check(mode == 1 || mode == 2, "swizzled rows are of 128 or 64 bytes here");
        machine::check(base_offset == 0, "patterns begin at their multiples here");
        row_bytes = mode == 1 ? 128 : 64;
        mask = row_bytes / 16 - 1;
        machine::check((start & ~(row_bytes - 1)) % (8 * row_bytes) == 0, "a pattern begins elsewhere");
    }

    template <class T>
    float at(int row, int k) const {
        const u32 plain = start + row / 8 * eight_rows + row % 8 * row_bytes + k * 2;
        const u32 address = plain ^ (plain >> 7 & mask) << 4;
        const u16 bits = machine::loaded<u16>(address);
        const int writer = machine::block->unfenced[address - machine::BASE];
        if (writer) machine::stop("wgmma reads what thread " + std::to_string(writer - 1) + " did not fence");
        return T::widened(bits);
    }
};

// Warp w of four has rows 16 w to 16 w + 15; D as of figure 149: every 8 columns as C and D of mma.
template <class T>
void multiply_warps(const std::vector<WgmmaOperands>& given, int pixels, int selector) {
    const SharedMatrix a(given[0].a), b(given[0].b);
    std::vector<float> columns(pixels * 32);
    for (int column = 0; column < pixels; ++column)
        for (int k = 0; k < 32; ++k) columns[column * 32 + k] = b.at<T>(column, k);
    for (int warp = 0; warp < 4; ++warp) {
        const WgmmaOperands* lanes = &given[32 * warp];
        const Indices indices([&](int lane) { return lanes[lane].words; }, selector);
        for (int row = 0; row < 16; ++row) {
            float values[16];
            for (int kept = 0; kept < 16; ++kept) values[kept] = a.at<T>(16 * warp + row, kept);
            for (int column = 0; column < pixels; ++column) {
                double sum = 0;
                for (int kept = 0; kept < 16; ++kept)
                    sum += double(values[kept]) * columns[column * 32 + kept / 2 * 4 + indices.of[row][kept]];
                const int lane = 4 * (row % 8) + column % 8 / 2;
                float& d = lanes[lane].d[column / 8 * 4 + row / 8 * 2 + column % 2];
                d = static_cast<float>(d + sum);
            }
        }
    }
}

template <class T, int PIXELS, int SELECTOR>
void multiply_sparse(float (&d)[PIXELS / 2], u64 a, u64 b, u32 words) {
    static_assert(PIXELS % 8 == 0 && PIXELS <= 256 && (SELECTOR == 0 || SELECTOR == 1));
    machine::check(machine::fiber->is_fenced, "wgmma without wgmma.fence before");
    const int place = machine::warps_place();
    const WgmmaOperands mine = {d, a, b, words};
    machine::meet(place, 128, "wgmma.mma_async.sp", &mine, [place](const auto& given) {
        std::vector<WgmmaOperands> all;
        for (const void* each : given) all.push_back(*static_cast<const WgmmaOperands*>(each));
        for (const WgmmaOperands& each : all)
            machine::check(each.a == all[0].a && each.b == all[0].b, "descriptors differ");
        const auto product = [all] { multiply_warps<T>(all, PIXELS, SELECTOR); };
        if (machine::block->policy.early_products) {
            product();
        } else {
            machine::block->products[place].push_back(product);
        }
    });
}
