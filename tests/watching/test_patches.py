"""Attributes replaced for a while, and put back."""

import datetime
import types

import pytest

from keras_repro.watching.patches import Patches

pytestmark = pytest.mark.no_backend


def test_put_back_in_reverse_order():
    """What was replaced twice is what it was at first."""
    module = types.ModuleType("module")
    module.value = 1
    patches = Patches()
    patches.replace(module, "value", 2)
    patches.replace(module, "value", 3)
    assert module.value == 3
    patches.undo()
    assert module.value == 1
    patches.undo()
    assert module.value == 1


def test_in_place_of_a_function():
    """What takes the place of a function looks like it, for all owners."""
    first, second = types.ModuleType("first"), types.ModuleType("second")

    def value():
        """The value."""
        return 1

    first.value = second.value = value
    patches = Patches()

    @patches.in_place_of("value", first, second)
    def other():
        return value() + 1

    assert first.value is second.value is other
    assert (other(), other.__name__, other.__doc__) == (
        *(2, "value"),
        "The value.",
    )
    patches.undo()
    assert first.value is second.value is value


def test_inherited_attribute_goes_again():
    """A class that inherits a method has none of its own afterwards."""

    class Base:
        def method(self):
            return "base"

    class Derived(Base):
        pass

    patches = Patches()
    patches.replace(Derived, "method", lambda self: "ours")
    assert (Derived().method(), Base().method()) == ("ours", "base")
    patches.undo()
    assert "method" not in vars(Derived)


def test_what_somebody_else_replaced_since_stays():
    """Theirs is not ours to take away."""
    module = types.ModuleType("module")
    module.value = 1
    patches = Patches()
    patches.replace(module, "value", 2)
    module.value = "theirs"
    patches.undo()
    assert module.value == "theirs"


def test_class_written_in_c():
    """`datetime.now` is replaced in place, and is the same type to anybody."""
    moment = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
    own = datetime.datetime.now
    patches = Patches()
    assert patches.replace_in_type(
        datetime.datetime, "now", classmethod(lambda cls, tz=None: moment)
    )
    assert datetime.datetime.now(datetime.UTC) is moment
    assert type(moment) is datetime.datetime
    patches.undo()
    assert datetime.datetime.now(datetime.UTC) > moment
    assert datetime.datetime.now == own


@pytest.mark.parametrize("name", ["no_such_name", "__eq__ "])
def test_unknown_attribute_of_a_class_in_c(name):
    """Nothing is added to a class that has no such attribute."""
    patches = Patches()
    assert not patches.replace_in_type(datetime.datetime, name, None)
    assert not hasattr(datetime.datetime, name)


def test_more_is_undone_in_its_turn():
    """Other actions are undone too, the last first."""
    done = []
    patches = Patches()
    patches.also_undo(lambda: done.append(1))
    patches.also_undo(lambda: done.append(2))
    patches.undo()
    assert done == [2, 1]
