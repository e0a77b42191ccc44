// How this build lays out the structs of the C interface.
#include <cstddef>
#include <string>

#include "executor/handle.h"

namespace autosparse {
namespace {

struct Member {
    const char *name;
    std::size_t offset, size;
};

template <std::size_t Count>
std::string line(const char *name, std::size_t size, const Member (&members)[Count]) {
    std::string text = std::string(name) + " " + std::to_string(size);
    for (const Member &member : members)
        text += std::string(" ") + member.name + ":" + std::to_string(member.offset) + ":" +
                std::to_string(member.size);
    return text + "\n";
}

std::string layout() {
#define AS_MEMBER(name) {#name, offsetof(as_op, name), sizeof(as_op::name)}
    const Member op[] = {
        AS_MEMBER(kind),        AS_MEMBER(input_count), AS_MEMBER(inputs),          AS_MEMBER(output),
        AS_MEMBER(residual),    AS_MEMBER(activation),  AS_MEMBER(kernel),          AS_MEMBER(kernel_h),
        AS_MEMBER(kernel_w),    AS_MEMBER(stride_h),    AS_MEMBER(stride_w),        AS_MEMBER(pad_top),
        AS_MEMBER(pad_left),    AS_MEMBER(pad_bottom),  AS_MEMBER(pad_right),       AS_MEMBER(dilation_h),
        AS_MEMBER(dilation_w),  AS_MEMBER(groups),      AS_MEMBER(channels_before), AS_MEMBER(count_include_pad),
        AS_MEMBER(weight),      AS_MEMBER(bias),        AS_MEMBER(block_n),         AS_MEMBER(group_start),
        AS_MEMBER(kept)};
#undef AS_MEMBER
#define AS_MEMBER(name) {#name, offsetof(as_kernel_info, name), sizeof(as_kernel_info::name)}
    const Member kernel_info[] = {
        AS_MEMBER(name),     AS_MEMBER(family),   AS_MEMBER(method),      AS_MEMBER(isa),
        AS_MEMBER(block_n),  AS_MEMBER(tile_out), AS_MEMBER(tile_pixels), AS_MEMBER(dtype),
        AS_MEMBER(lanes),    AS_MEMBER(fuses),    AS_MEMBER(window_in),   AS_MEMBER(window_out)};
#undef AS_MEMBER
    return line("as_op", sizeof(as_op), op) + line("as_kernel_info", sizeof(as_kernel_info), kernel_info);
}

}  // namespace
}  // namespace autosparse

extern "C" AS_EXPORT const char *as_abi_layout(void) {
    const std::string *text = nullptr;
    autosparse::guarded([&] {
        static const std::string made = autosparse::layout();
        text = &made;
        return AS_OK;
    });
    return text ? text->c_str() : "";
}
