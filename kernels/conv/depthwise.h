// The depthwise convolution operator: one input and one output per group.
#pragma once

#include <vector>

#include "executor/program.h"

namespace autosparse {

class DepthwiseConvolution : public Operator {
public:
    DepthwiseConvolution(const as_op &op, int dtype, const Shape &input, const Shape &output);
    // Square kernels of 3 or 5, strides of 1 or 2, one type in and out; the rest is Convolution's.
    static bool runs(const as_op &op, const Tensor &input, const Tensor &output);

    void constrain(Program &) override;
    void divide(Program &) override;
    bool suits_bands(const Program &) const override;
    void plan(Program &, int op, void *workspace) override;
    std::size_t weight_words() const override { return weights_.size() + bias_.size(); }
    void place_weights(float *) override;

private:
    void run_rows(const Program &, int image, int channel, const Rows &) const;
    void touch_rows(const Program &, int image, int channel, const Rows &, LineMoves &) const;

    as_op op_;
    const Shape input_shape_, output_shape_;
    std::vector<float> weights_, bias_;
    const float *placed_ = nullptr;
    int bands_ = 1;
};

}  // namespace autosparse
