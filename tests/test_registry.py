import pytest

from ilm_jax.errors import UserError
from ilm_jax.registry import Registry


def test_a_second_entry_of_a_name_is_refused_and_the_same_one_may_come_again():
    registry = Registry[dict]("reader")
    one = {"a": 1}
    registry.register("mine", one)
    registry.register("mine", one)
    with pytest.raises(UserError, match="there is a reader 'mine' already"):
        registry.register("mine", {"a": 2})
    assert registry["mine"] is one and list(registry) == ["mine"]


def test_an_entry_named_by_module_is_imported_when_it_is_asked_for():
    registry = Registry[object]("dataset")
    registry.register("lazy", "collections:OrderedDict")
    registry.register("absent", "no_such_module:thing")
    import collections

    assert registry["lazy"] is collections.OrderedDict
    with pytest.raises(UserError, match="no dataset 'lazi'; there are lazy"):
        registry["lazi"]
