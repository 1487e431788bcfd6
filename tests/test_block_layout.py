"""Laws of where blocks lie: cores tile the image, weights sum to one."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngp_warp.errors import ConfigError
from ngp_warp.primitives.image.blocks.layout import Layout, make_layout, weights


@given(
    length=st.integers(1, 5000),
    count=st.integers(1, 12),
    margin=st.integers(0, 40),
    share=st.floats(0, 1),
)
def test_weights_sum_to_one(length: int, count: int, margin: int, share: float) -> None:
    try:
        layout = make_layout(length, length, blocks=f"{count}x{count}", margin=margin)
    except ConfigError:
        return
    positions = np.append(np.arange(length) + 0.5, [0.0, share * length, length])
    parts = [weights(positions, layout.edges_x, margin, i) for i in range(count)]
    total = np.sum([w for w, _ in parts], axis=0)
    assert np.allclose(total, 1, rtol=0, atol=1e-15 * count)
    assert all((w >= 0).all() and (w <= 1).all() for w, _ in parts)
    assert np.allclose(np.sum([s for _, s in parts], axis=0), 0, atol=1e-12)
    for i, (weight, _) in enumerate(parts):
        first, last = layout.span_x(i)
        assert (weight[(positions < first) | (positions > last)] == 0).all()
        inner = (positions >= first + 2 * margin) & (positions < last - 2 * margin)
        assert (weight[inner] == 1).all()


def test_cores_tile_the_image_and_boxes_have_the_margin_around_them() -> None:
    layout = make_layout(103, 57, blocks="4x2", margin=5)
    seen = np.zeros((57, 103), int)
    for at in layout.cells():
        left, top, width, height = layout.core(*at)
        seen[top : top + height, left : left + width] += 1
        box = layout.box(*at)
        assert box[0] == max(left - 5, 0)
        assert box[0] + box[2] == min(left + width + 5, 103)
        assert box[1] == max(top - 5, 0)
        assert box[1] + box[3] == min(top + height + 5, 57)
    assert (seen == 1).all()
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout
    sized = make_layout(103, 57, block_size=30, margin=5)
    assert (sized.columns, sized.rows) == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--blocks COLUMNSxROWS or --block-size"),
        ({"blocks": "2x2", "block_size": 9}, "not both"),
        ({"blocks": "2"}, "COLUMNSxROWS"),
        ({"blocks": "0x2"}, "COLUMNSxROWS"),
        ({"blocks": "1000x1"}, "from 1 to 999"),
        ({"blocks": "200x1", "margin": 0}, "have a side of 0; take fewer"),
        (
            {"blocks": "4x4"},
            "of an image of 100x100 pixels have a side of 25, less than two margins of 16",
        ),
        ({"blocks": "1x1", "margin": -1}, "at least 0"),
    ],
)
def test_blocks_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_layout(100, 100, **options)
