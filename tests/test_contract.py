"""The contracts hold for what is right, catch what is faulty (tests/faulty.py), and cannot be weakened."""

import base64
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import gateway
from gateway import (
    Chat,
    ChatResponse,
    Message,
    ModelCard,
    ModelService,
    Request,
    Response,
    Rewrite,
    Transform,
    UnsupportedTask,
)
from gateway.config import PolicyConfig
from gateway.keys import EnvKey, FileKey
from gateway.policies import builtin_policies
from gateway.state import MemoryState
from gateway.testing import Echo, MemoryStore, Scripted
from gateway.testing.contract import (
    KeyProviderContract,
    ModelServiceContract,
    PolicyContract,
    StateStoreContract,
    TransformContract,
    WeightStoreContract,
)
from gateway.weight_files import FileStore

FAULTY = Path(__file__).with_name("faulty.py")

RUN_AND_STREAM = "test_a_stream_says_the_same_as_a_run"
STREAM = "test_a_stream_ends_in_one_response_that_its_deltas_add_up_to"
ANSWERED = "test_every_task_on_the_card_is_answered"
CANCEL = "test_cancelling_ends_a_call_at_once"
BLOCKED = "test_the_event_loop_is_never_blocked"
LEAK = "test_no_call_leaves_a_task"
CLEAN_ERRORS = "test_what_goes_wrong_is_a_gateway_error_without_content"

CAUGHT = [
    ("Disagrees", RUN_AND_STREAM, "run and stream of one chat request disagree"),
    ("DeltasDiffer", STREAM, "the deltas of a stream of a chat request add up to"),
    ("TwoResponses", STREAM, "yielded 2 responses"),
    ("NoResponse", STREAM, "yielded 0 responses"),
    ("GapInParts", STREAM, "part indices [1]"),
    ("WrongType", ANSWERED, "returned a GenerateResponse"),
    ("BadUsage", ANSWERED, "cached_tokens within input_tokens"),
    ("BlocksTheLoop", BLOCKED, "held the event loop for"),
    ("StandsStill", ANSWERED, "the event loop stood still"),
    ("IgnoresCancellation", CANCEL, "after it had been cancelled"),
    ("SwallowsCancellation", CANCEL, "was cancelled and returned all the same"),
    ("BreaksWhenCancelled", CANCEL, "another answer after calls had been cancelled"),
    ("LiesAboutTools", "test_a_claimed_feature_works[tools]", "the card claims tools"),
    ("LiesAboutJson", "test_a_claimed_feature_works[json_schema]", "the card claims json_schema"),
    ("LiesAboutTasks", ANSWERED, "a task on its card, raised UnsupportedTask"),
    ("LiesAboutItsName", "test_the_card_is_true", "the card is named 'faulty', the service 'another'"),
    ("IgnoresMaxTokens", "test_max_tokens_is_honoured", "max_tokens=1 gave"),
    ("LeaksATask", LEAK, "left 4 task(s) running: sleep"),
    ("LeaksWhenClosedEarly", "test_closing_a_stream_early_leaves_nothing", "left 3 task(s) running: sleep"),
    ("RaisesABareException", ANSWERED, "raised a bare KeyError"),
    ("BreaksMidStream", STREAM, "raised a bare ConnectionResetError"),
    ("AnswersAnything", "test_a_task_not_on_the_card_is_unsupported", "not on the card gave"),
    ("ChangesTheRequest", "test_a_request_is_never_changed", "run changed its chat request"),
    ("NeverEnds", STREAM, "did not end within 100000 items"),
    ("Hangs", STREAM, "did not end within 0.4 s"),
    ("QuotesThePrompt", CLEAN_ERRORS, "the prompt shows in a repr or error of 'UnsupportedTask'"),
    ("MixesCallers", "test_many_at_once_get_the_same_answers", "another among 16 at once"),
    ("CountsTheGone", "test_its_footprint_is_told_at_any_time", "counts requests that have ended"),
    ("CannotCloseTwice", "test_aclose_frees_everything_and_may_be_called_twice", "closed already"),
    ("Moody", "test_it_never_raises_and_judges_with_the_right_types", "admit raised TypeError for the card 'bare'"),
    ("Moody", "test_the_same_facts_get_the_same_judgement", "admit raised TypeError"),
    ("Lazy", "test_it_never_raises_and_judges_with_the_right_types", "admit_live gave a coroutine"),
    ("Rash", "test_the_same_facts_get_the_same_judgement", "score judged"),
    ("Rash", "test_judging_changes_nothing", "judging changed its ask, card or live"),
    ("Boundless", "test_it_never_raises_and_judges_with_the_right_types", "score gave inf USD"),
    ("Sloppy", "test_what_goes_out_is_of_the_same_task", "a Generate went out as a Chat"),
    ("Sloppy", "test_each_attempt_begins_the_same", "went out differently"),
    ("Sloppy", "test_a_stream_in_any_cutting_gives_the_whole", "deltas came back as"),
    ("Sloppy", "test_two_attempts_share_nothing", "two attempts, fed in turn"),
    ("Sloppy", "test_notes_and_reprs_hold_no_content", "a note or repr holds"),
    ("Hasty", "test_what_is_written_is_read_back", "the tensor"),
    ("Hasty", "test_nothing_is_there_before_commit", "was not committed yet succeeded"),
    ("Hasty", "test_an_existing_model_is_not_overwritten", "create over an existing model succeeded"),
    ("Naked", "test_another_context_does_not_open_it", "gave a key"),
    ("Naked", "test_a_flipped_bit_does_not_open_it", "a bit flipped in byte"),
    ("Naked", "test_two_wraps_of_one_key_differ", "the same bytes"),
    ("Naked", "test_the_wrap_does_not_show_the_key", "in the clear"),
    ("Naked", "test_the_wrap_of_another_key_is_not_mine", "raised ValueError"),
    ("Generous", "test_reservations_at_once_never_exceed_a_limit", "50 of 50 reservations at once"),
    ("Generous", "test_settling_twice_changes_nothing", "gave a"),
]


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """What pytest says of each check of each faulty class that failed: {(class, check): message}."""
    at = tmp_path_factory.mktemp("faulty")
    (at / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(at / "pytest.ini"), "-p", "no:cacheprovider"]
    command += ["--junitxml", str(at / "out.xml"), "-k", f"not StandsStill or {ANSWERED}", str(FAULTY)]
    root = str(Path(gateway.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, env=env, cwd=at, capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 1, ran.stdout[-3000:] + ran.stderr[-1000:]
    out = {}
    for case in ET.parse(at / "out.xml").getroot().iter("testcase"):
        for failure in case.findall("failure"):
            out[case.get("classname").rpartition(".")[2], case.get("name")] = failure.text
    return out


@pytest.mark.parametrize(("fault", "check", "message"), CAUGHT)
def test_each_fault_is_caught_by_its_check_with_a_message_that_names_it(failures, fault, check, message):
    found = {name: text for (owner, name), text in failures.items() if owner == f"Test{fault}"}
    assert check in found, f"{fault} passed {check}; it failed {sorted(found)}"
    assert message in found[check]


def test_a_fault_in_one_thing_fails_few_other_checks(failures):
    for fault, check in (
        ("SwallowsCancellation", CANCEL),
        ("BlocksTheLoop", BLOCKED),
        ("LiesAboutItsName", "test_the_card_is_true"),
    ):
        assert [name for owner, name in failures if owner == f"Test{fault}"] == [check]


def test_a_message_says_what_was_seen_what_was_expected_and_why(failures):
    text = failures["TestBlocksTheLoop", BLOCKED]
    assert "faulty.py" in text  # where the loop was held
    assert "expected: at most 0.03 s" in text
    assert "why: " in text


def test_overriding_a_check_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match=r"TestMine overrides test_the_card_is_true of ModelServiceContract"):

        class TestMine(ModelServiceContract):
            def test_the_card_is_true(self):
                pass


def test_setting_a_check_to_none_is_a_type_error():
    with pytest.raises(TypeError, match="overrides test_max_tokens_is_honoured"):
        type(ModelServiceContract)("TestMine", (ModelServiceContract,), {"test_max_tokens_is_honoured": None})


@pytest.mark.parametrize("name", ["_check", "_expect_same", "fixtures", "settings", "__test__", "__init__", "__getattribute__"])
def test_what_the_checks_stand_on_cannot_be_overridden(name):
    with pytest.raises(TypeError, match=f"overrides {name}"):
        type(ModelServiceContract)("TestMine", (ModelServiceContract,), {name: False})


def test_a_mixin_cannot_override_a_check():
    class Mixin:
        def test_the_card_is_true(self):
            pass

    with pytest.raises(TypeError, match="test_the_card_is_true"):

        class TestMine(Mixin, ModelServiceContract):
            pass


def test_a_subclass_of_a_subclass_cannot_override_a_check():
    class TestMine(ModelServiceContract):
        pass

    with pytest.raises(TypeError, match="test_the_card_is_true"):

        class TestYours(TestMine):
            test_the_card_is_true = None


@pytest.mark.parametrize(
    "mark", [pytest.mark.skip, pytest.mark.skipif(True, reason="no"), pytest.mark.xfail, [pytest.mark.xfail]]
)
def test_a_contract_cannot_be_marked_to_be_passed_over(mark):
    with pytest.raises(TypeError, match="is marked"):
        type(ModelServiceContract)("TestMine", (ModelServiceContract,), {"pytestmark": mark})


def test_a_decorator_cannot_mark_it_either():
    with pytest.raises(TypeError, match="TestMine is marked skip"):

        @pytest.mark.skip
        class TestMine(ModelServiceContract):
            pass


def test_a_mark_that_takes_nothing_away_is_allowed():
    @pytest.mark.usefixtures("tmp_path")
    class TestMine(ModelServiceContract):
        pass

    assert [mark.name for mark in TestMine.pytestmark] == ["usefixtures"]


def test_a_check_cannot_be_replaced_or_removed_afterwards():
    class TestMine(StateStoreContract):
        pass

    for cls in (TestMine, StateStoreContract):
        with pytest.raises(TypeError, match="cannot be replaced"):
            cls.test_windows_roll = None
    with pytest.raises(TypeError, match="cannot be removed"):
        del StateStoreContract.test_windows_roll


@pytest.mark.parametrize(("name", "value"), [("patience_s", float("inf")), ("max_block_s", 60), ("patience_s", "long")])
def test_a_setting_has_bounds(name, value):
    with pytest.raises(TypeError, match=f"TestMine.{name} must be a plain number"):
        type(ModelServiceContract)("TestMine", (ModelServiceContract,), {name: value})


def test_own_tests_fixtures_and_settings_are_welcome():
    class TestMine(ModelServiceContract):
        patience_s = 60
        deterministic = False
        own = "mine"

        @pytest.fixture
        def service(self):
            return Echo()

        def test_of_my_own(self, service):
            pass

    assert TestMine.patience_s == 60


class TestEcho(ModelServiceContract):
    @pytest.fixture
    def service(self):
        return Echo()


class TestEchoThatClaimsNothing(ModelServiceContract):
    @pytest.fixture
    def service(self):
        return Echo("plain", tasks=frozenset({Chat}), features=frozenset())


class TestScripted(ModelServiceContract):
    @pytest.fixture
    def service(self):
        return Scripted("scripted", otherwise="As the script says.")


class Shout(ModelService):
    card = ModelCard(name="shout", tasks=frozenset({Chat}), context=8192)

    async def run(self, request, /):
        match request:
            case Chat(messages=[*_, last]):
                return ChatResponse.of(last.text.upper())
        raise UnsupportedTask.of(self.card, request)


class TestShout(ModelServiceContract):
    @pytest.fixture
    def service(self):
        return Shout()


@dataclass(frozen=True, kw_only=True)
class RhymeResponse(Response):
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rhyme(Request[RhymeResponse]):
    word: str = field(repr=False)


class Rhymer(ModelService):
    card = ModelCard(name="rhymer", tasks=frozenset({Rhyme}))

    async def run(self, request, /):
        if not isinstance(request, Rhyme):
            raise UnsupportedTask.of(self.card, request)
        return RhymeResponse(words=(f"b{request.word[1:]}",))


class TestATaskOfOnesOwn(ModelServiceContract):
    @pytest.fixture
    def service(self):
        return Rhymer()

    @pytest.fixture
    def requests(self):
        return [Rhyme(word="cat"), Rhyme(word="hound")]


@pytest.mark.parametrize("policy", builtin_policies(PolicyConfig()), ids=lambda policy: policy.name)
class TestBuiltInPolicies(PolicyContract):
    pass


def test_a_task_of_ones_own_without_a_request_of_it_fails_one_check_and_the_rest_point_there(tmp_path):
    (tmp_path / "test_rhymer.py").write_text("""
import pytest
from dataclasses import dataclass
from gateway import ModelCard, ModelService, Request, Response, UnsupportedTask
from gateway.testing.contract import ModelServiceContract

@dataclass(frozen=True, kw_only=True)
class Rhyme(Request[Response]):
    word: str

class Rhymer(ModelService):
    card = ModelCard(name="rhymer", tasks=frozenset({Rhyme}))
    async def run(self, request, /):
        raise UnsupportedTask.of(self.card, request)

class TestRhymer(ModelServiceContract):
    @pytest.fixture
    def service(self):
        return Rhymer()
""")
    root = str(Path(gateway.__file__).parents[1])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "test_rhymer.py",
    ]
    env = {**os.environ, "PYTHONPATH": root, "PYTEST_ADDOPTS": "", "COLUMNS": "200"}
    ran = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1 and "1 failed, 1 passed" in ran.stdout, ran.stdout
    assert ran.stdout.count("the contract has no request of it") == 1
    assert "a fixture `requests` that returns a list with a Rhyme in it" in ran.stdout
    assert f"nothing to check with: see {ANSWERED}, which fails for it" in ran.stdout


class Quoter(Transform):
    """Puts quotes around what goes out, and counts them off what comes back."""

    name = "quoter"

    def begin(self, request, findings, card):
        if not isinstance(request, Chat):
            return None
        last = Message.user(f'"{request.messages[-1].text}"')
        rewrite = QuoterRewrite(Chat(messages=(*request.messages[:-1], last)))
        rewrite.note = "quoter: 1"
        return rewrite


class QuoterRewrite(Rewrite):
    def incoming(self, response):
        return ChatResponse.of(response.text.replace('"', ""), usage=response.usage)

    def feed(self, delta):
        yield gateway.Delta(delta.data.replace('"', ""), delta.part)


class TestQuoter(TransformContract):
    @pytest.fixture
    def transform(self):
        return Quoter()


class TestFileStore(WeightStoreContract):
    @pytest.fixture
    def store(self):
        return FileStore()

    @pytest.fixture
    def uri(self, tmp_path):
        return f"file:{tmp_path / 'model'}"


class TestMemoryStore(WeightStoreContract):
    @pytest.fixture
    def store(self):
        return MemoryStore()

    @pytest.fixture
    def uri(self):
        return "memory:model"


class TestEnvKey(KeyProviderContract):
    @pytest.fixture(autouse=True)
    def keys_in_the_environment(self, monkeypatch):
        pytest.importorskip("cryptography")
        monkeypatch.setenv("ONE_KEY", base64.b64encode(bytes(range(32))).decode())
        monkeypatch.setenv("OTHER_KEY", base64.b64encode(bytes(range(32, 64))).decode())

    @pytest.fixture
    def provider(self):
        return EnvKey()

    @pytest.fixture
    def uri(self):
        return "env:ONE_KEY"

    @pytest.fixture
    def other_uri(self):
        return "env:OTHER_KEY"


class TestFileKey(KeyProviderContract):
    @pytest.fixture
    def provider(self):
        pytest.importorskip("cryptography")
        return FileKey()

    @pytest.fixture
    def uri(self, tmp_path):
        return key_file(tmp_path / "one", 0)

    @pytest.fixture
    def other_uri(self, tmp_path):
        return key_file(tmp_path / "other", 32)


def key_file(path, start):
    path.write_text(base64.b64encode(bytes(range(start, start + 32))).decode())
    path.chmod(0o600)
    return f"file:{path}"


class TestMemoryState(StateStoreContract):
    @pytest.fixture
    def state(self, clock):
        return MemoryState(clock)
