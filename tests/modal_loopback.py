"""A stand-in for Modal's control plane on 127.0.0.1, for the real client of modal 1.6.4.

``LoopbackModal`` keeps volumes in a folder, runs "remote" functions as the plain functions they are (``bodies``, by
name), and remembers what the client sent: the RPCs in order, the options, the images, the mounted files, the secrets.
Modal's gRPC messages are internal to it, so this is tied to the exact version in constraints.txt.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.server
import json
import shutil
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpclib
import grpclib.server
from google.protobuf.empty_pb2 import Empty
from grpclib.events import RecvRequest, listen
from modal._serialization import deserialize_data_format, serialize_data_format
from modal._utils.grpc_testing import patch_mock_servicer
from modal._utils.grpc_utils import custom_detail_codec
from modal._vendor import cloudpickle
from modal_proto import api_grpc, api_pb2

SUCCESS = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
FAILURE = api_pb2.GenericResult.GENERIC_STATUS_FAILURE
PICKLE = api_pb2.DATA_FORMAT_PICKLE


def _token() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return ".".join([part({"alg": "none"}), part({"exp": int(time.time()) + 3600}), "x"])


@patch_mock_servicer
class LoopbackModal(api_grpc.ModalClientBase):
    """``root`` holds a folder per volume; ``bodies`` is what each function does; ``held`` delays results while set."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bodies: dict[str, Callable[..., Any]] = {}
        self.calls: list[str] = []
        self.images: list[Any] = []
        self.mounted: list[str] = []
        self.secrets: list[str] = []
        self.functions: dict[str, Any] = {}
        self.options: list[Any] = []
        self.sent: list[tuple[str, tuple[Any, ...]]] = []
        self.logs: list[str] = []
        self.detached: list[bool] = []
        self.held = threading.Event()
        self.held.set()
        self.file_url = ""
        self.preempt = 0
        """How many times a running input is lost and started again before its result counts."""
        self._data: dict[str, Any] = {}
        self._volumes: dict[str, str] = {}
        self._uploads: dict[str, bytes] = {}
        self._names: dict[str, str] = {}
        self._outbox: dict[str, list[Any]] = defaultdict(list)
        self._results: dict[str, Any] = {}
        self._count = 0
        self.url = ""

    async def recv_request(self, event: RecvRequest) -> None:
        self.calls.append(event.method_name.rpartition("/")[2])

    def _id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}-{self._count}"

    def volume(self, name: str) -> Path:
        """Where a volume's files are."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _volume_of(self, volume_id: str) -> Path:
        return self.volume(next(name for name, known in self._volumes.items() if known == volume_id))

    # Sessions, apps, images.

    async def ClientHello(self, s: Any) -> None:
        await s.recv_message()
        await s.send_message(api_pb2.ClientHelloResponse())

    async def AuthTokenGet(self, s: Any) -> None:
        await s.recv_message()
        await s.send_message(api_pb2.AuthTokenGetResponse(token=_token()))

    async def EnvironmentGetOrCreate(self, s: Any) -> None:
        await s.recv_message()
        settings = api_pb2.EnvironmentSettings(image_builder_version="2025.06")
        metadata = api_pb2.EnvironmentMetadata(name="main", settings=settings)
        await s.send_message(api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata))

    async def AppCreate(self, s: Any) -> None:
        r = await s.recv_message()
        self.detached.append(r.app_state == api_pb2.APP_STATE_DETACHED)
        await s.send_message(api_pb2.AppCreateResponse(app_id="ap-1", app_page_url="http://127.0.0.1/app"))

    async def AppHeartbeat(self, s: Any) -> None:
        await s.recv_message()
        await s.send_message(Empty())

    async def AppPublish(self, s: Any) -> None:
        await s.recv_message()
        await s.send_message(api_pb2.AppPublishResponse(url="u", deployed_at=time.time()))

    async def AppClientDisconnect(self, s: Any) -> None:
        await s.recv_message()
        await s.send_message(Empty())

    async def AppGetLogs(self, s: Any) -> None:
        r = await s.recv_message()
        sent = 0
        while True:
            lines = self.logs[sent:]
            sent += len(lines)
            items = [
                api_pb2.TaskLogs(data=line + "\n", file_descriptor=api_pb2.FILE_DESCRIPTOR_STDOUT) for line in lines
            ]
            if items:
                await s.send_message(api_pb2.TaskLogsBatch(entry_id=str(sent), items=items))
            if r.function_call_id in self._results and sent == len(self.logs):
                await s.send_message(api_pb2.TaskLogsBatch(app_done=True))
                return
            await asyncio.sleep(0.02)

    async def FunctionCallGetInfo(self, s: Any) -> None:
        r = await s.recv_message()
        done = int(r.function_call_id in self._results)
        info = api_pb2.FunctionCallInfo(total_inputs=1, succeeded_inputs=api_pb2.InputCategoryInfo(total=done))
        await s.send_message(api_pb2.FunctionCallGetInfoResponse(info=info))

    async def ImageGetOrCreate(self, s: Any) -> None:
        r = await s.recv_message()
        self.images.append(r.image)
        await s.send_message(
            api_pb2.ImageGetOrCreateResponse(
                image_id=self._id("im"),
                result=api_pb2.GenericResult(status=SUCCESS),
                metadata=api_pb2.ImageMetadata(image_builder_version=r.builder_version),
            )
        )

    async def SecretGetOrCreate(self, s: Any) -> None:
        r = await s.recv_message()
        self.secrets.append(r.deployment_name)
        assert not r.env_dict, "secrets travel by name, never by value"
        await s.send_message(api_pb2.SecretGetOrCreateResponse(secret_id=self._id("st")))

    # Files: code that is mounted, and volumes.

    async def MountGetOrCreate(self, s: Any) -> None:
        r = await s.recv_message()
        self.mounted += [file.filename for file in r.files]
        metadata = api_pb2.MountHandleMetadata(content_checksum_sha256_hex="x")
        await s.send_message(api_pb2.MountGetOrCreateResponse(mount_id=self._id("mo"), handle_metadata=metadata))

    async def MountBatchedCheckExistence(self, s: Any) -> None:
        await s.recv_message()
        await s.send_message(api_pb2.MountBatchedCheckExistenceResponse())

    async def MountPutFile(self, s: Any) -> None:
        r = await s.recv_message()
        if r.data:
            self._uploads[r.sha256_hex] = r.data
        empty = hashlib.sha256(b"").hexdigest()
        if r.sha256_hex == empty:
            self._uploads[empty] = b""
        await s.send_message(api_pb2.MountPutFileResponse(exists=r.sha256_hex in self._uploads))

    async def VolumeGetOrCreate(self, s: Any) -> None:
        r = await s.recv_message()
        volume_id = self._volumes.setdefault(r.deployment_name, self._id("vo"))
        version = r.version or 1
        metadata = api_pb2.VolumeMetadata(name=r.deployment_name, version=version)
        await s.send_message(api_pb2.VolumeGetOrCreateResponse(volume_id=volume_id, version=version, metadata=metadata))

    async def VolumePutFiles(self, s: Any) -> None:
        r = await s.recv_message()
        for file in r.files:
            path = self._volume_of(r.volume_id) / file.filename.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._uploads[file.sha256_hex])
        await s.send_message(Empty())

    async def VolumeListFiles(self, s: Any) -> None:
        r = await s.recv_message()
        volume = self._volume_of(r.volume_id)
        folder = volume / r.path.strip("/")
        if not folder.exists():
            raise grpclib.GRPCError(grpclib.Status.NOT_FOUND, f"{r.path} not found")
        entries = [
            api_pb2.FileEntry(
                path=path.relative_to(volume).as_posix(), type=1 if path.is_file() else 2, size=path.stat().st_size
            )
            for path in sorted(folder.rglob("*"))
        ]
        await s.send_message(api_pb2.VolumeListFilesResponse(entries=entries))

    async def VolumeGetFile2(self, s: Any) -> None:
        r = await s.recv_message()
        path = self._volume_of(r.volume_id) / r.path.lstrip("/")
        if not path.is_file():
            raise grpclib.GRPCError(grpclib.Status.NOT_FOUND, f"{r.path} not found")
        size = path.stat().st_size
        urls = [f"{self.file_url}/{path.relative_to(self.root).as_posix()}"] if size else []
        await s.send_message(api_pb2.VolumeGetFile2Response(get_urls=urls, size=size, start=0, len=size))

    async def VolumeRemoveFile(self, s: Any) -> None:
        r = await s.recv_message()
        path = self._volume_of(r.volume_id) / r.path.strip("/")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        await s.send_message(Empty())

    # Functions: created, called, mapped.

    async def FunctionPrecreate(self, s: Any) -> None:
        r = await s.recv_message()
        function_id = r.existing_function_id or self._id("fu")
        metadata = api_pb2.FunctionHandleMetadata(
            function_name=r.function_name,
            function_type=r.function_type,
            function_schema=r.function_schema,
            app_id="ap-1",
        )
        await s.send_message(api_pb2.FunctionPrecreateResponse(function_id=function_id, handle_metadata=metadata))

    def _metadata(self, function: Any) -> Any:
        return api_pb2.FunctionHandleMetadata(
            function_name=function.function_name,
            function_type=function.function_type,
            definition_id="de-1",
            function_schema=function.function_schema,
            supported_input_formats=function.supported_input_formats,
            supported_output_formats=function.supported_output_formats,
            app_id="ap-1",
            max_object_size_bytes=2 * 1024 * 1024,
        )

    async def FunctionCreate(self, s: Any) -> None:
        r = await s.recv_message()
        function_id = r.existing_function_id or self._id("fu")
        function = r.function_data if r.function_data.ranked_functions else r.function
        data = api_pb2.FunctionData()
        data.CopyFrom(r.function_data)
        if not data.ranked_functions:
            data.ranked_functions.append(api_pb2.FunctionData.RankedFunction(rank=0, function=r.function))
        self.functions[function_id], self._data[function_id] = function, data
        await s.send_message(
            api_pb2.FunctionCreateResponse(
                function_id=function_id, function_data=data, handle_metadata=self._metadata(function)
            )
        )

    async def FunctionBindParams(self, s: Any) -> None:
        r = await s.recv_message()
        self.options.append(r.function_options)
        function_id = self._id("fu")
        function = self.functions[function_id] = self.functions[r.function_id]
        self._data[function_id] = self._data[r.function_id]
        await s.send_message(
            api_pb2.FunctionBindParamsResponse(bound_function_id=function_id, handle_metadata=self._metadata(function))
        )

    def _put(self, call_id: str, function_name: str, items: Any) -> list[Any]:
        answers = []
        for item in items:
            input_id = self._id("in")
            args, _ = deserialize_data_format(item.input.args, item.input.data_format, None)
            self.sent.append((function_name, args))
            threading.Thread(
                target=self._work, args=(call_id, item.idx, input_id, function_name, args), daemon=True
            ).start()
            answers.append(api_pb2.FunctionPutInputsResponseItem(idx=item.idx, input_id=input_id, input_jwt="j"))
        return answers

    async def FunctionMap(self, s: Any) -> None:
        r = await s.recv_message()
        call_id, function = self._id("fc"), self.functions[r.function_id]
        self._names[call_id] = function.function_name
        await s.send_message(
            api_pb2.FunctionMapResponse(
                function_call_id=call_id,
                function_call_jwt="fj",
                pipelined_inputs=self._put(call_id, function.function_name, r.pipelined_inputs),
                retry_policy=getattr(function, "retry_policy", None),
                max_inputs_outstanding=1000,
            )
        )

    async def FunctionPutInputs(self, s: Any) -> None:
        r = await s.recv_message()
        items = self._put(r.function_call_id, self._names[r.function_call_id], r.inputs)
        await s.send_message(api_pb2.FunctionPutInputsResponse(inputs=items))

    async def FunctionFinishInputs(self, s: Any) -> None:
        await s.recv_message()
        await s.send_message(Empty())

    async def FunctionCallFromId(self, s: Any) -> None:
        r = await s.recv_message()
        metadata = api_pb2.FunctionCallHandleMetadata(app_id="ap-1", function_id=next(iter(self.functions)))
        await s.send_message(
            api_pb2.FunctionCallFromIdResponse(function_call_id=r.function_call_id, num_inputs=1, metadata=metadata)
        )

    async def FunctionGetOutputs(self, s: Any) -> None:
        r = await s.recv_message()
        call_id, waited = r.function_call_id, 0.0
        while True:
            if r.HasField("start_idx"):
                # `get` may ask for the same result again and again.
                outputs = [self._results[call_id]] if call_id in self._results else []
            else:
                outputs, self._outbox[call_id] = self._outbox[call_id], []
            if outputs or waited >= min(r.timeout, 1.0):
                await s.send_message(
                    api_pb2.FunctionGetOutputsResponse(outputs=outputs, num_unfinished_inputs=int(not outputs))
                )
                return
            await asyncio.sleep(0.02)
            waited += 0.02

    def _work(self, call_id: str, idx: int, input_id: str, name: str, args: tuple[Any, ...]) -> None:
        """A container: starts when the input arrives, whoever waits for the result."""
        self.held.wait()
        item = self._run(idx, input_id, name, args)
        self._results[call_id] = item
        self._outbox[call_id].append(item)

    def _run(self, idx: int, input_id: str, name: str, args: tuple[Any, ...]) -> Any:
        while True:
            try:
                value = self.bodies[name](*args)
                result = api_pb2.GenericResult(status=SUCCESS, data=serialize_data_format(value, PICKLE))
            except Exception as error:
                if self.preempt:
                    self.preempt -= 1
                    continue
                result = api_pb2.GenericResult(
                    status=FAILURE,
                    exception=repr(error),
                    data=cloudpickle.dumps(error),
                    traceback=traceback.format_exc(),
                )
            return api_pb2.FunctionGetOutputsItem(idx=idx, input_id=input_id, result=result, data_format=PICKLE)


@contextlib.contextmanager
def serve(modal: LoopbackModal) -> Iterator[str]:
    """The control plane and the file server, running; yields the control plane's address."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    server: dict[str, Any] = {}

    async def main() -> None:
        server["grpc"] = grpclib.server.Server([modal], status_details_codec=custom_detail_codec)
        listen(server["grpc"], RecvRequest, modal.recv_request)
        await server["grpc"].start(host="127.0.0.1", port=0)
        server["port"] = server["grpc"]._server.sockets[0].getsockname()[1]
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        loop.run_forever()

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(modal.root))

        def log_message(self, *_: Any) -> None: ...

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as files:
        threading.Thread(target=files.serve_forever, daemon=True).start()
        modal.file_url = f"http://127.0.0.1:{files.server_address[1]}"
        modal.url = f"http://127.0.0.1:{server['port']}"
        try:
            yield modal.url
        finally:
            files.shutdown()
            loop.call_soon_threadsafe(server["grpc"].close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
