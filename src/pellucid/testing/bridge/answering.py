"""One socket of the bridge: what each command does with the objects of the server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import zmq

from pellucid.testing.bridge.core import RemoteCore
from pellucid.testing.bridge.java import Face, JavaError, Method, read_argument
from pellucid.testing.bridge.message import Part, encode, failure, read_request, write_reply
from pellucid.testing.bridge.values import Vector

if TYPE_CHECKING:
    from pellucid.testing.bridge.server import BridgeServer

__all__ = ["Answering", "JavaClass"]


class JavaClass:
    """A class by its name: how it is constructed, and what can be called without an object.

    Parameters
    ----------
    name
    constructors
        By the types of their arguments.
    static
        Methods that need no object.
    target
        Has them.
    """

    def __init__(
        self,
        name: str,
        constructors: Mapping[tuple[str, ...], Callable[..., Any]],
        static: Iterable[Method] = (),
        target: Any = None,
    ) -> None:
        self.name, self.constructors, self.target = name, constructors, target
        self.face = Face("java.lang.Class", *static, interfaces=(name,))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


class Answering:
    """One socket of the server, and the objects that went out through it.

    Parameters
    ----------
    server
    port
    router
        Bound to it. Seen from outside it is a REP; libzmq's own REP hears nobody any more after half of all
        connections that sent it 1000 random bytes (libzmq 4.3.5, measured).
    main
        Whether it stays when it has no objects.
    """

    def __init__(self, server: BridgeServer, port: int, router: zmq.Socket[bytes], main: bool) -> None:
        self.server, self.port, self.main = server, port, main
        self.objects: dict[object, Any] = {}
        self._router = router
        self._commands = {
            "connect": self._connect,
            "get-constructors": self._constructors,
            "get-class": self._class,
            "constructor": self._constructor,
            "run-method": self._run_method,
            "get-field": self._get_field,
            "set-field": self._set_field,
            "destructor": self._destructor,
        }

    def run(self) -> None:
        """Answer until the server stops; a further socket also ends with the last of its objects."""
        try:
            while True:
                frames = self._router.recv_multipart()
                if b"" not in frames:
                    continue  # as a REP does: there is nobody to answer to
                body = frames.index(b"") + 1
                self._router.send_multipart([*frames[:body], *self._answer(frames[body:])], copy=False)
                if not self.main and not self.objects:
                    self._router.linger = 1000
                    break
        except zmq.ContextTerminated:
            pass
        finally:
            self.server.forget_socket(self.port)
            self._router.close()
            self.objects.clear()

    def _answer(self, frames: list[bytes]) -> list[Part]:
        where = "org.micromanager.pyjavaz.ZMQServer"
        try:
            request = read_request(frames)
            command = self._commands.get(request["command"])
            if command is None:
                raise JavaError("Unknown Command")
            where = f"{where}.{request['command']}({request.get('name') or request.get('classpath') or ''})"
            return write_reply(command(request))
        except KeyError as error:
            missing = JavaError(f"JSONObject[{error}] not found.", "mmcorej.org.json.JSONException")
            return write_reply(failure(missing, where))
        except Exception as error:
            return write_reply(failure(error, where))

    # ---------------------------------------------------------------- commands

    def _connect(self, request: dict[str, Any]) -> dict[str, Any]:
        request["debug"]  # the real one asks for it
        return {"type": "none", "version": self.server.version}

    def _constructors(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self.server.find_class(request["classpath"])
        return {"type": "none", "api": [{"name": found.name, "arguments": list(a)} for a in found.constructors]}

    def _class(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._hand_out(self.server.find_class(request["classpath"]), request)

    def _constructor(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self.server.find_class(request["classpath"])
        types = tuple(request["argument-types"])
        if types not in found.constructors:
            raise JavaError("No Matching method found with argumetn types")
        return self._hand_out(found.constructors[types](*self._arguments(request)), request)

    def _run_method(self, request: dict[str, Any]) -> dict[str, Any]:
        target = self._own(request)
        method = self.server.find_face(target).find(request["name"], request["argument-types"])
        arguments = self._arguments(request)
        if isinstance(target, RemoteCore):
            return self.serialized(target.invoke(method, arguments))
        result = getattr(target, method.name)(*arguments)
        return self.serialized(Vector(method.returns, result) if isinstance(result, tuple | list) else result)

    def _get_field(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.serialized(getattr(*self._field(request)))

    def _set_field(self, request: dict[str, Any]) -> dict[str, Any]:
        target, name = self._field(request)
        value, former = request["value"], getattr(target, name)
        if not isinstance(former, int | float) or not isinstance(value, int | float):
            raise JavaError(f"Can not set field {name}", "java.lang.IllegalArgumentException")
        setattr(target, name, type(former)(value))
        return {"type": "none"}

    def _destructor(self, request: dict[str, Any]) -> dict[str, Any]:
        self.objects.pop(request["hash-code"], None)
        return {"type": "none"}

    # ---------------------------------------------------------------- objects

    def _own(self, request: dict[str, Any]) -> Any:
        number = request["hash-code"]
        if number not in self.objects:
            raise JavaError(f"no object {number}", "java.lang.NullPointerException")
        return self.objects[number]

    def _field(self, request: dict[str, Any]) -> tuple[Any, str]:
        target, name = self._own(request), request["name"]
        if name not in self.server.find_face(target).fields:
            raise JavaError(str(name), "java.lang.NoSuchFieldException")
        return target, name

    def _arguments(self, request: dict[str, Any]) -> list[Any]:
        kinds, values = request["argument-types"], request["arguments"]
        sent = request["argument-deserialization-types"]
        if not len(kinds) == len(values) == len(sent):
            raise JavaError("wrong number of arguments", "java.lang.IllegalArgumentException")
        return [self._argument(*each) for each in zip(values, kinds, sent, strict=True)]

    def _argument(self, value: Any, kind: str, sent_as: object) -> Any:
        if not isinstance(value, dict):
            return read_argument(value, kind, sent_as, self.server.big_endian)
        found = self.server.find_object(value["hash-code"])
        if kind not in self.server.find_face(found).types:
            raise JavaError("argument type mismatch", "java.lang.IllegalArgumentException")
        return found

    def _hand_out(self, value: Any, request: dict[str, Any]) -> dict[str, Any]:
        through = self.server.open_socket() if request.get("new-port") is True else self
        return through.serialized(value)

    def serialized(self, value: Any) -> dict[str, Any]:
        """Return the reply for a value; an object is kept under a new number until the client lets go of it."""
        whole = encode(value)
        if whole is not None:
            return whole
        face = self.server.find_face(value)
        number = f"{id(value):x}{uuid.uuid4()}"
        self.objects[number] = value
        return {
            "type": "unserialized-object",
            "class": face.name,
            "hash-code": number,
            "port": self.port,
            "interfaces": face.types,
            "fields": face.fields,
            "api": face.api,
        }
