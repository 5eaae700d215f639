"""gateway: any model, local or hosted, as a service behind one interface, picked by a policy that says why.

    with Gateway.discover() as gw:
        print(gw.chat("Name three rivers.", Need(place="local")).text)

The rooms; a module imports only from those above it:

    errors                      the error tree
    decision, trace             why a model was chosen; what happened on the way
    card, parts                 facts of a model; content
    request, tasks              what is asked and answered; Chat, Generate, Embed
    text_tasks, media_tasks     Classify, Extract, Answer, Summarize, Translate, Rerank; those on images and sound
    wire                        requests, responses, deltas and errors as JSON
    clock                       time and chance
    config, toml_lines          gateway.toml, and where in it a key is written
    keys, safetensors           who wraps a key; the format of weights
    weights, weight_files       where weights come from; a directory
    service                     ModelService, the one interface; Resources, what it may use
    transform, state, events    rewriting on the way; limits, in memory; what is told to observers
    sqlite                      limits that the processes of a host share
    breaker, histogram          whether a service may be asked now; measurements
    live, vitals                how well it does; what learns that
    remember, registry, survey  what is kept across restarts; services, described and started once; what they say of themselves
    routing, policies, routes   what judges a model; the built-in rules; needs with names
    ranking, judge, router      the models in order; asking the policies; deciding
    record, basis, replay       what a decision was made from, as JSON too; the same decision again
    hookspecs, plugins, otel    the hooks; loading what is installed; events as OpenTelemetry names them
    retry, hop, settle          what may be asked again; one attempt; what it takes and costs
    outcome, journal, call      which error a caller gets; what happened on a call; one request's way
    patience, asking            time limits; a model's answer in time, and hedging
    stream, bars                a streamed answer; how far something has come
    batch_journal, batch        many requests at once, and going on with them where they were broken off
    gateway, loop, sync, cli    AsyncGateway; a loop in a thread; Gateway for code that is not async; the `gateway` program

A request's way: transforms inspect it -> policies judge every model -> the best one is reserved and started -> transforms
rewrite the request -> the service answers -> transforms restore the reply -> settle, learn, trace. When a model fails before
its first delta, the rest are judged again, with what has been learnt.
"""

from gateway.bars import Bars
from gateway.card import LOCAL, ModelCard, Need, Place, Price, Quota, Usage
from gateway.clock import Clock, Random, SystemClock
from gateway.config import AttemptConfig, GatewayConfig, parse_config
from gateway.decision import Candidate, Decision, Score, Veto
from gateway.errors import (
    AllModelsFailed,
    AttemptTimeout,
    BadReply,
    BudgetExceeded,
    Closed,
    ConfigError,
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    Denied,
    GatewayError,
    InvalidRequest,
    KeyNotMine,
    MissingSecret,
    ModelMissing,
    NoEligibleModel,
    OutOfQuota,
    Overloaded,
    PluginError,
    RateLimited,
    Rejected,
    ServiceCrashed,
    ServiceError,
    TransformFailed,
    UnknownModel,
    Unreachable,
    Unsupported,
    UnsupportedOption,
    UnsupportedTask,
    WeightsError,
)
from gateway.events import Event, Observer
from gateway.gateway import AsyncGateway, ModelStatus
from gateway.hookspecs import API_VERSION, Command, hookimpl
from gateway.keys import EnvKey, FileKey, KeyProvider, KeyringKey, Keys, Secret, secret
from gateway.live import Live
from gateway.media_tasks import (
    Box,
    Chunk,
    ClassifyImage,
    Detected,
    DetectObjects,
    DetectObjectsResponse,
    GenerateImage,
    GenerateImageResponse,
    Speak,
    SpeakResponse,
    Transcribe,
    TranscribeResponse,
)
from gateway.parts import (
    Audio,
    Citation,
    Delta,
    File,
    Image,
    Media,
    Part,
    Reasoning,
    Restart,
    Text,
    ToolCall,
    ToolResult,
    assemble,
    deltas_of,
)
from gateway.patience import Patience
from gateway.request import Meta, Request, Response, Traits
from gateway.routing import Ask, Policy, Shape
from gateway.safetensors import TensorInfo, read_safetensors_header, safetensors_header
from gateway.service import Footprint, ModelService, Options, Resources
from gateway.state import Lease, Limit, Refusal, StateStore
from gateway.stream import Stream
from gateway.sync import Gateway, SyncStream
from gateway.tasks import Chat, ChatResponse, Embed, EmbedResponse, Finish, Generate, GenerateResponse, Logprob, Message, Tool
from gateway.text_tasks import (
    Answer,
    AnswerResponse,
    Classify,
    ClassifyResponse,
    Extract,
    ExtractResponse,
    Found,
    Label,
    Ranked,
    Rerank,
    RerankResponse,
    Span,
    Summarize,
    SummarizeResponse,
    Translate,
    TranslateResponse,
)
from gateway.trace import Attempt, Trace
from gateway.transform import Findings, Rewrite, Transform
from gateway.weight_files import FileStore
from gateway.weights import ShardedWeights, Weights, WeightStore, WeightsWriter

# fmt: off
__all__ = [
    "API_VERSION", "LOCAL", "AllModelsFailed", "Answer", "AnswerResponse", "Ask", "AsyncGateway", "Attempt",
    "AttemptConfig", "AttemptTimeout", "Audio", "BadReply", "Bars", "Box", "BudgetExceeded", "Candidate", "Chat",
    "ChatResponse", "Chunk", "Citation", "Classify", "ClassifyImage", "ClassifyResponse", "Clock", "Closed",
    "Command", "ConfigError", "ContentFiltered", "ContextTooLong", "DeadlineExceeded", "Decision", "Delta", "Denied",
    "DetectObjects", "DetectObjectsResponse", "Detected", "Embed", "EmbedResponse", "EnvKey", "Event", "Extract",
    "ExtractResponse", "File", "FileKey", "FileStore", "Findings", "Finish", "Footprint", "Found", "Gateway", "GatewayConfig",
    "GatewayError", "Generate", "GenerateImage", "GenerateImageResponse", "GenerateResponse", "Image", "InvalidRequest",
    "KeyNotMine", "KeyProvider", "KeyringKey", "Keys", "Label", "Lease", "Limit", "Live", "Logprob", "Media", "Message", "Meta",
    "MissingSecret", "ModelCard", "ModelMissing", "ModelService", "ModelStatus", "Need", "NoEligibleModel", "Observer",
    "Options", "OutOfQuota", "Overloaded", "Part", "Patience", "Place", "PluginError", "Policy", "Price", "Quota", "Random",
    "Ranked", "RateLimited", "Reasoning", "Refusal", "Rejected", "Request", "Rerank", "RerankResponse", "Resources", "Response",
    "Restart", "Rewrite", "Score", "Secret", "ServiceCrashed", "ServiceError", "Shape", "ShardedWeights", "Span", "Speak",
    "SpeakResponse", "StateStore", "Stream", "Summarize", "SummarizeResponse", "SyncStream", "SystemClock",
    "TensorInfo", "Text", "Tool", "ToolCall", "ToolResult", "Trace", "Traits", "Transcribe", "TranscribeResponse",
    "Transform", "TransformFailed", "Translate", "TranslateResponse", "UnknownModel", "Unreachable", "Unsupported",
    "UnsupportedOption", "UnsupportedTask", "Usage", "Veto", "WeightStore", "Weights", "WeightsError",
    "WeightsWriter", "assemble", "deltas_of", "hookimpl", "parse_config",
    "read_safetensors_header", "safetensors_header", "secret",
]
