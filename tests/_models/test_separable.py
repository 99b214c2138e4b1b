"""Of which models it is known that they keep examples apart."""

import pytest
from support.separable_models import APART, MIXING, L, sequential

from keras_fwd._models.separable import keeps_examples_apart

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("name", APART)
def test_known_models_keep_examples_apart(name):
    assert keeps_examples_apart(APART[name]())


def test_a_layer_of_the_users_may_say_so_itself():
    class Shift(L.Layer):
        keeps_examples_apart = True

        def call(self, x):
            return x + 1.0

    assert keeps_examples_apart(sequential(L.Dense(3), Shift()))


@pytest.mark.parametrize("name", MIXING)
def test_of_others_it_is_not_known(name):
    assert not keeps_examples_apart(MIXING[name]())
