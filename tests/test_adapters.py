"""Quantizers in other people's models: what those unpack, and the models themselves where installed."""

import pytest
import torch

from fqvae_kernels import ScalarQuantizer, patched
from fqvae_kernels.adapters import DacQuantizer, DiffusersQuantizer, PythaeQuantizer


def quantizer(**options):
    torch.manual_seed(0)
    return ScalarQuantizer(8, **({"kl_weight": 1e-2, "commitment_weight": 0.25} | options))


def z_of(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_the_triple_of_diffusers():
    own = quantizer(estimator="nearest")
    adapter, z = DiffusersQuantizer(own), z_of(2, 3, 4, 5)
    z_q, loss, (perplexity, encodings, indices) = adapter(z)
    expected = own(z)
    assert torch.equal(z_q, expected.quantized) and torch.equal(loss, expected.loss) and loss.dim() == 0
    assert perplexity is None and encodings is None and torch.equal(indices, expected.indices)
    torch.testing.assert_close(adapter.get_codebook_entry(indices), z_q)
    assert adapter.get_codebook_entry(indices.reshape(-1), (2, 4, 5, 3)).shape == z.shape


def test_the_triple_of_diffusers_with_levels_and_projections():
    """Those of a recipe for VQModel: three latents of four channels, decoded from their indices."""
    torch.manual_seed(0)
    own = ScalarQuantizer(levels=[8, 8, 4], dim=4, channel_first=True, estimator="nearest", codebook_weight=1)
    adapter, z = DiffusersQuantizer(own), z_of(2, 4, 5, 6)
    z_q, loss, (_, _, indices) = adapter(z)
    assert z_q.shape == z.shape and indices.shape == (2, 3, 5, 6) and loss > 0
    torch.testing.assert_close(adapter.get_codebook_entry(indices), z_q)
    torch.testing.assert_close(adapter.get_codebook_entry(indices, (2, 5, 6, 4)), z_q)


def test_the_output_of_pythae():
    own = quantizer(num_codebooks=3)
    adapter, z = PythaeQuantizer(own).eval(), z_of(2, 4, 5, 3)
    found, expected = adapter(z, uses_ddp=False), own(z)
    assert torch.equal(found.quantized_vector, expected.quantized.permute(0, 3, 1, 2))
    assert torch.equal(found.quantized_indices.permute(0, 2, 3, 1), expected.indices)
    assert torch.equal(found.loss, expected.loss)


def test_the_five_of_dac():
    own = quantizer(estimator="nearest")
    adapter, hidden = DacQuantizer(own, 6, 4), z_of(2, 6, 7)
    quantized, commitment, codebook, codes, projected = adapter(hidden)
    assert quantized.shape == hidden.shape and codes.shape == (2, 7) and projected.shape == (2, 4, 7)
    taken = own(projected)
    assert commitment == 0 and torch.equal(codebook, taken.loss)
    # Numbers to the base 8, the first latent first.
    expected = torch.tensor(
        [[int("".join(map(str, f)), 8) for f in part.T.tolist()] for part in taken.indices]
    )
    assert torch.equal(codes, expected)
    torch.testing.assert_close(adapter.codebook(codes).transpose(1, 2), taken.quantized)
    values, again = adapter.decode_latents(projected)
    assert torch.equal(again, codes) and torch.equal(values, taken.quantized) and own.training


def test_dac_with_the_scalars_in_dimension_1():
    torch.manual_seed(0)
    last = DacQuantizer(quantizer(estimator="nearest"), 6, 4)
    first = DacQuantizer(quantizer(estimator="nearest", channel_first=True), 6, 4)
    first.load_state_dict(last.state_dict())
    for frames in (7, 9):
        hidden = z_of(2, 6, frames)
        for got, true in zip(first(hidden), last(hidden), strict=True):
            torch.testing.assert_close(got, true)
        codes = last(hidden)[3]
        assert torch.equal(first.codebook(codes), last.codebook(codes))
        assert torch.equal(first.decode_latents(first(hidden)[4])[1], codes)
    assert first.quantizer.usage.shape == (4, 8)
    with pytest.raises(ValueError, match="no dim"):
        DacQuantizer(quantizer(dim=4, num_latents=2), 6, 4)


def test_what_does_not_fit_is_named():
    for make in (DiffusersQuantizer, PythaeQuantizer, lambda q: DacQuantizer(q, 4, 2)):
        with pytest.raises(TypeError, match="quantizer must be a ScalarQuantizer, but was Linear"):
            make(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="one codebook, but had 3"):
        DacQuantizer(quantizer(num_codebooks=3), 4, 3)
    with pytest.raises(ValueError, match="22 latents of 8 codes"):
        DacQuantizer(quantizer(), 4, 22)
    DacQuantizer(quantizer(), 4, 21)  # 63 bits
    for wrong in (2.0, "2", True):
        with pytest.raises(TypeError, match="latents must be"):
            DacQuantizer(quantizer(), 4, wrong)
        with pytest.raises(TypeError, match="hidden_size must be"):
            DacQuantizer(quantizer(), wrong, 2)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"latents must be .* but was {wrong}"):
            DacQuantizer(quantizer(), 4, wrong)
        with pytest.raises(ValueError, match=f"hidden_size must be .* but was {wrong}"):
            DacQuantizer(quantizer(), wrong, 2)


def steps(model, loss_of, count=3):
    """Losses of a few steps; every parameter that the loss depends on gets a gradient."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    return losses


def test_in_diffusers():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.VQModel(
        1, 1, ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2, (8, 8), 1, latent_channels=4,
        num_vq_embeddings=16, norm_num_groups=4, vq_embed_dim=4, mid_block_add_attention=False,
    )  # fmt: skip
    model.quantize = DiffusersQuantizer(quantizer())
    images = z_of(4, 1, 16, 16)

    def loss_of(model):
        found = model(images)
        return (found.sample - images).square().mean() + found.commit_loss

    steps(model, loss_of)
    assert model.quantize.quantizer.codebook.grad is not None
    assert model.quantize.quantizer.usage.sum() == 3 * 4 * 4 * 8 * 8


def test_in_pythae():
    pythae = pytest.importorskip("pythae.models")
    config = pythae.VQVAEConfig(input_dim=(1, 16, 16), latent_dim=8)
    torch.manual_seed(0)
    model = pythae.VQVAE(config)
    model.quantizer = PythaeQuantizer(quantizer())
    steps(model, lambda model: model({"data": z_of(6, 1, 16, 16)}).loss)
    assert model.quantizer.quantizer.codebook.grad is not None


def test_in_dac():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.DacConfig(
        encoder_hidden_size=8, downsampling_ratios=[2, 4], upsampling_ratios=[4, 2], decoder_hidden_size=16,
        n_codebooks=2, codebook_size=16, codebook_dim=4,
    )  # fmt: skip
    model = transformers.DacModel(config)
    for place in range(2):
        model.quantizer.quantizers[place] = DacQuantizer(quantizer(), config.hidden_size, 4)
    audio = z_of(2, 1, 64)
    length = model.decode(model.encode(audio).quantized_representation).audio_values.shape[-1]

    def loss_of(model):
        encoded = model.encode(audio)
        decoded = model.decode(encoded.quantized_representation).audio_values
        return (decoded - audio[:, 0, :length]).square().mean() + encoded.loss.mean()

    steps(model, loss_of)
    model.eval()
    encoded = model.encode(audio)
    by_codes = model.decode(audio_codes=encoded.audio_codes).audio_values
    torch.testing.assert_close(by_codes, model.decode(encoded.quantized_representation).audio_values)


def test_in_wav2vec2():
    """No line of the model changes: its quantizer calls PyTorch's function by its full name."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=[16, 16],
        conv_stride=[5, 2], conv_kernel=[10, 3], num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, num_codevectors_per_group=8, codevector_dim=16,
        proj_codevector_dim=16,
    )  # fmt: skip
    layer = transformers.Wav2Vec2ForPreTraining(config).quantizer
    features = z_of(2, 9, 16).requires_grad_()
    layer.codevectors.data.uniform_()
    with patched():
        torch.manual_seed(3)
        vectors, perplexity = layer(features)
    vectors.sum().backward()
    assert vectors.shape == (2, 9, 16) and 2 <= perplexity <= 16 and features.grad.abs().sum() > 0
    parts = layer.codevectors[0].view(2, 8, 8)
    for group in range(2):  # each is a row of the codebook, to the last bit
        own = vectors.detach()[..., 8 * group : 8 * group + 8].reshape(-1, 1, 8)
        assert (own == parts[group]).all(-1).any(-1).all()
