"""An engine process that recites instead of computing.

`python -m novacron.testing.reciting_engine`, as EngineProcess starts it for tests of what stands
around engines. It starts in a moment and keeps the protocol of records/wire.py. The token at a
position follows from the prompt and the position alone, as real ones do, so whoever goes on with a
request can be told from whoever begins it anew.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Final

import msgspec
import zmq

from novacron.engine.engine_arguments import EngineArguments
from novacron.engine.pulse import Pulse, PulseMemory
from novacron.records import wire
from novacron.records.output import EngineOutput, EngineStats, ModelSpec
from novacron.records.request import FinishReason, Request

VOCAB_SIZE: Final = 200
STEP_S: Final = 0.004
_FIRST_TOKEN: Final = 20  # those before it mean something to tokenizers
_SPEC: Final = ModelSpec(
    name="recited",
    model_version="1",
    architecture="none",
    vocab_size=VOCAB_SIZE,
    hidden_size=8,
    max_model_len=4096,
    eos_token_ids=(0,),
    dtype="float32",
    device="cpu",
    num_parameters=1,
    weight_bytes=4,
    num_blocks=1024,
    block_size=16,
    kv_cache_bytes=1,
)


def token_at(prompt: tuple[int, ...], position: int) -> int:
    mixed = (sum(prompt) * 31 + position * 17 + position * position) % (VOCAB_SIZE - _FIRST_TOKEN)
    return _FIRST_TOKEN + mixed


def run(arguments: EngineArguments) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    inbox.connect(arguments.inbox)
    outbox.connect(arguments.outbox)
    version = arguments.config.model.chat_template or _SPEC.model_version  # a test's to choose
    spec = msgspec.structs.replace(_SPEC, model_version=version)
    outbox.send(wire.encode(wire.Ready(wire.WIRE_VERSION, spec)))
    running: dict[str, tuple[Request, int]] = {}
    while True:
        while inbox.poll(0 if running else None):
            match wire.decode_to_engine(inbox.recv()):
                case wire.Submit(requests):
                    running |= {
                        one.request_id: (one, len(one.output_token_ids)) for one in requests
                    }
                case wire.Abort(request_ids):
                    for request_id in request_ids:
                        running.pop(request_id, None)
                case wire.Shutdown():
                    return
            if running:
                break
        outputs = tuple(_next(running, request_id) for request_id in tuple(running))
        outbox.send(wire.encode(wire.Outputs(outputs, EngineStats(num_running=len(running)))))
        time.sleep(STEP_S)


def _next(running: dict[str, tuple[Request, int]], request_id: str) -> EngineOutput:
    request, position = running[request_id]
    running[request_id] = (request, position + 1)
    is_last = position + 1 >= (request.sampling.max_tokens or VOCAB_SIZE)
    if is_last:
        del running[request_id]
    return EngineOutput(
        request_id=request_id,
        new_token_ids=(token_at(request.prompt_token_ids, position),),
        finish_reason=FinishReason.LENGTH if is_last else None,
        first_scheduled_time_s=time.monotonic(),
    )


def _end_with_client() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineArguments)
    threading.Thread(target=_end_with_client, daemon=True).start()
    Pulse(PulseMemory(told.pulse))
    run(told)
