"""What objects print, in a shell and in a notebook; what names of torch and Keras are answered."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import numpy as np
import pytest
from helpers.assertions import refused

import fc_arrayapi as fc
from fc_arrayapi import _foreign_names


def layer_of(backend, C=3, S=2):
    W = np.arange(float(C * S)).reshape(C, S)
    return fc.FullyConnected(backend.asarray(W), backend.asarray(np.zeros(S)))


def test_gradients_print_numbers_only_where_they_are_few(backend):
    layer = layer_of(backend)
    X = backend.asarray(np.ones((1000, 3)))
    text = repr(layer.backward(X, layer(X), needs=("dX", "dB")))
    assert "\n" not in text
    assert len(text) < 200
    assert "(1000, 3) float64" in text
    assert "dW=None" in text
    assert backend.chunked or "6000." in text
    assert "float64" in repr(fc.moments(backend.asarray(np.ones((40, 20)))))


def test_a_notebook_shows_tables(backend):
    layer = layer_of(backend)
    X = backend.asarray(np.ones((10, 3)))
    grads = layer.backward(X, layer(X), needs=("dX", "dW"))
    for shown, facts in (
        (grads, ("dX", "(10, 3)", "dW", "(3, 2)", "float64")),
        (layer, ("W", "(3, 2)", "B", "(2,)")),
        (fc.moments(X), ("XX", "(3, 3)", "sum_X")),
        (fc.testing.check_gradients(X, layer.W, layer.B, layer(X)), ("dX", "&lt;dY, U W&gt;", "ok")),
    ):
        page = shown._repr_html_()
        assert page.startswith("<table>")
        assert [fact for fact in facts if fact not in page] == []
    assert "dB" not in grads._repr_html_()
    assert "sizes that differ" in fc.testing.check_backend(np)._repr_html_()


@pytest.mark.parametrize("name", _foreign_names.GRADIENTS)
def test_gradients_under_other_names(backend, name):
    layer = fc.FullyConnected(backend.asarray(np.ones((3, 2))), None)
    grads = layer.backward(backend.asarray(np.ones((4, 3))), backend.asarray(np.ones((4, 2))))
    with pytest.raises(AttributeError, match=re.escape(_foreign_names.GRADIENTS[name])):
        getattr(grads, name)


@pytest.mark.parametrize("name", _foreign_names.ATTRIBUTES)
def test_names_of_torch_and_keras_are_answered(name):
    layer = fc.FullyConnected(np.ones((3, 2)))
    with refused(AttributeError, name):
        getattr(layer, name)
    assert not hasattr(layer, name)


def test_an_unknown_name_is_an_ordinary_error():
    with pytest.raises(AttributeError, match=r"'FullyConnected' object has no attribute 'nonsense'$"):
        _ = fc.FullyConnected(np.ones((3, 2))).nonsense


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda: fc.FullyConnected(units=3), ("units", "S", "FullyConnected.init(C, S)")),
        (lambda: fc.FullyConnected(np.ones((3, 2)), bias=np.ones(2)), ("bias", "B")),
        (lambda: fc.FullyConnected(np.ones((3, 2)), nonsense=1), ("nonsense", "W, B")),
        (lambda: fc.FullyConnected.init(3, 2, activation="relu"), ("activation", "Y")),
        (lambda: fc.FullyConnected.init(3, 2, use_bias=False), ("use_bias", "bias=False")),
        (lambda: fc.FullyConnected.init(3, 2, nonsense=1), ("nonsense", "initializer")),
    ],
)
def test_arguments_of_torch_and_keras_are_answered(call, facts):
    with refused(TypeError, *facts):
        call()


def test_a_layer_is_still_copied_pickled_and_inspected():
    layer = fc.FullyConnected(np.ones((3, 2)), np.zeros(2))
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(other.W, layer.W)
    assert list(inspect.signature(fc.FullyConnected).parameters) == ["W", "B"]
