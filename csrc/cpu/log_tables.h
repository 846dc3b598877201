// Tables for log2 by the leading five bits of the mantissa: log2(mantissa) = log[i] + log2(1 + (mantissa *
// reciprocal[i] - 1)). Each reciprocal lies near the middle of its interval, nudged until its logarithm is a
// float to within 1e-11 or so. Centred: the upper sixteen intervals are halved into [0.75, 1), and their log
// carries the 1 that the exponent lacks; the two intervals that touch 1 have reciprocal 1, so that nothing is
// lost to cancellation there.
#pragma once

namespace fqvae {

struct alignas(64) LogTable {
    float reciprocal[32], log[32];
};

constexpr LogTable kCentredLog = {
    {0x1.000000p+0f, 0x1.e92932p-1f, 0x1.dadcd0p-1f, 0x1.cd4710p-1f, 0x1.c0ac10p-1f, 0x1.b4d934p-1f,
     0x1.a953c6p-1f, 0x1.9ef382p-1f, 0x1.9496f0p-1f, 0x1.8a9ca0p-1f, 0x1.81835ap-1f, 0x1.78a438p-1f,
     0x1.704076p-1f, 0x1.67e692p-1f, 0x1.605636p-1f, 0x1.58ddbcp-1f, 0x1.51b15ep+0f, 0x1.4afc92p+0f,
     0x1.4496bep+0f, 0x1.3e567cp+0f, 0x1.380a42p+0f, 0x1.325af4p+0f, 0x1.2cc82cp+0f, 0x1.2738bcp+0f,
     0x1.21c218p+0f, 0x1.1d1c0ap+0f, 0x1.184c2ap+0f, 0x1.139002p+0f, 0x1.0f0d2ep+0f, 0x1.0a55e0p+0f,
     0x1.060e96p+0f, 0x1.000000p+0f},
    {0x0.0p+0f,      0x1.0da8a6p-4f, 0x1.bcf6d4p-4f, 0x1.343ddcp-3f, 0x1.861b92p-3f, 0x1.d503b0p-3f,
     0x1.11fe04p-2f, 0x1.367a9ep-2f, 0x1.5bd646p-2f, 0x1.80ba08p-2f, 0x1.a3304ep-2f, 0x1.c59530p-2f,
     0x1.e6dcb0p-2f, 0x1.046004p-1f, 0x1.14108ep-1f, 0x1.23e51ap-1f, 0x1.336bdap-1f, 0x1.423ceap-1f,
     0x1.50a7d4p-1f, 0x1.5f0506p-1f, 0x1.6dc77ap-1f, 0x1.7b5c3cp-1f, 0x1.88ec0ep-1f, 0x1.96b472p-1f,
     0x1.a480b4p-1f, 0x1.b07306p-1f, 0x1.bd05ccp-1f, 0x1.c99b72p-1f, 0x1.d5cca4p-1f, 0x1.e2c3b4p-1f,
     0x1.eeba10p-1f, 0x1.000000p+0f},
};

constexpr LogTable kPlainLog = {
    {0x1.f84f3ap-1f, 0x1.e92932p-1f, 0x1.dadcd0p-1f, 0x1.cd4710p-1f, 0x1.c0ac10p-1f, 0x1.b4d934p-1f,
     0x1.a953c6p-1f, 0x1.9ef382p-1f, 0x1.9496f0p-1f, 0x1.8a9ca0p-1f, 0x1.81835ap-1f, 0x1.78a438p-1f,
     0x1.704076p-1f, 0x1.67e692p-1f, 0x1.605636p-1f, 0x1.58ddbcp-1f, 0x1.51b15ep-1f, 0x1.4afc92p-1f,
     0x1.4496bep-1f, 0x1.3e567cp-1f, 0x1.380a42p-1f, 0x1.325af4p-1f, 0x1.2cc82cp-1f, 0x1.2738bcp-1f,
     0x1.21c218p-1f, 0x1.1d1c0ap-1f, 0x1.184c2ap-1f, 0x1.139002p-1f, 0x1.0f0d2ep-1f, 0x1.0a55e0p-1f,
     0x1.060e96p-1f, 0x1.023f88p-1f},
    {0x1.65bc66p-6f, 0x1.0da8a6p-4f, 0x1.bcf6d4p-4f, 0x1.343ddcp-3f, 0x1.861b92p-3f, 0x1.d503b0p-3f,
     0x1.11fe04p-2f, 0x1.367a9ep-2f, 0x1.5bd646p-2f, 0x1.80ba08p-2f, 0x1.a3304ep-2f, 0x1.c59530p-2f,
     0x1.e6dcb0p-2f, 0x1.046004p-1f, 0x1.14108ep-1f, 0x1.23e51ap-1f, 0x1.336bdap-1f, 0x1.423ceap-1f,
     0x1.50a7d4p-1f, 0x1.5f0506p-1f, 0x1.6dc77ap-1f, 0x1.7b5c3cp-1f, 0x1.88ec0ep-1f, 0x1.96b472p-1f,
     0x1.a480b4p-1f, 0x1.b07306p-1f, 0x1.bd05ccp-1f, 0x1.c99b72p-1f, 0x1.d5cca4p-1f, 0x1.e2c3b4p-1f,
     0x1.eeba10p-1f, 0x1.f98a9ep-1f},
};

} // namespace fqvae
