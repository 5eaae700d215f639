"""The contracts of the seams, as test classes for plugin authors: inherit one, give it your subject, run pytest.

    from gateway.testing.contract import ModelServiceContract

    class TestShout(ModelServiceContract):
        @pytest.fixture
        def service(self):
            return Shout()

A contract cannot be weakened: overriding a check, or marking the class as skipped, is a TypeError when the class is made.
Each contract's docstring lists the fixtures and settings that an author may define. Needs pytest.
"""

from gateway.testing.contract_routes import PolicyContract, TransformContract
from gateway.testing.contract_service import ModelServiceContract
from gateway.testing.contract_stores import KeyProviderContract, StateStoreContract, WeightStoreContract

__all__ = [
    "KeyProviderContract",
    "ModelServiceContract",
    "PolicyContract",
    "StateStoreContract",
    "TransformContract",
    "WeightStoreContract",
]
