"""What gateways and engines say of their load, be it nonsense."""

import asyncio
import string
from collections.abc import AsyncIterator
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.load_pods import Engine, Gateway, response, running

from falcon_operator.decide.autoscale.types import GatewaySample
from falcon_operator.observe import load
from falcon_operator.observe.figures import LINE_BYTES, MOST, MOST_SERIES, totals
from falcon_operator.observe.gateway import ANSWER_BYTES, GatewayLink
from falcon_operator.observe.http import Http, Unreadable
from falcon_operator.observe.load import engine_names, engine_sample, gateway_sample, read_engine

RUNNING = {"running": ("vllm:num_requests_running",)}


def one(text: str) -> float:
    return totals(text.encode(), RUNNING)["running"]


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("vllm:num_requests_running 3\n", 3),
        ("vllm:num_requests_running 3.0\n", 3),
        ("vllm:num_requests_running\t1e3 1700000000\n", 1000),
        ("vllm:num_requests_running{} 2 \n", 2),
        ('vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"} 2\n', 3),
        ('vllm:num_requests_running{a="1",b="2"} 1\nvllm:num_requests_running{b="2",a="1"} 1\n', 1),
        ('vllm:num_requests_running{a="}\\" 9",} 1.5\n', 1.5),
        ("# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\nother NaN\n", 0),
        ("vllm:num_requests_running_by_reason 9\nvllm:num_requests_running 4\n", 4),
    ],
)
def test_a_figure_is_the_sum_of_its_series(text: str, total: float) -> None:
    assert one(text) == total


NAME = "vllm:num_requests_running"
ODD = {
    f"{NAME} NaN\n": f"says something that is no number for {NAME}",
    f"{NAME} +Inf\n": f"says something that is no number for {NAME}",
    f"{NAME} 1_000\n": f"says something that is no number for {NAME}",
    f"{NAME} ٣\n": f"says something that is no number for {NAME}",
    f"{NAME} -1\n": f"says a negative number for {NAME}",
    f"{NAME} -0.001\n": f"says a negative number for {NAME}",
    f"{NAME} 1e308\n": f"says a number that no count can be for {NAME}",
    f"{NAME} 1e9999\n": f"says a number that no count can be for {NAME}",
    f"{NAME} {2**53 + 2}\n": f"says a number that no count can be for {NAME}",
    f'{NAME}{{e="0"}} {2**53}\n{NAME}{{e="1"}} {2**53}\n': f"says a number that no count can be for {NAME}",
    f'{NAME}{{e="0"}} 1\n{NAME}{{e="0"}} 2\n': f"says two numbers at once for {NAME}",
    f'{NAME}{{e="0}} 1\n': f"says labels that cannot be read for {NAME}",
    f'{NAME}{{e="0" 1\n': f"says a line that cannot be read for {NAME}",
    f"{NAME} \n": f"says a line that cannot be read for {NAME}",
    f"{NAME} 1 2 3\n": f"says a line that cannot be read for {NAME}",
    f"{NAME}{{{'}' * LINE_BYTES} 1 x\n": f"says a line that cannot be read for {NAME}",
    "".join(f'{NAME}{{e="{n}"}} 1\n' for n in range(MOST_SERIES + 1)): f"says more than 256 series for {NAME}",
    "vllm:num_requests_runnin 1\n": f"does not say {NAME}",
    "renamed:num_requests_running 1\n": f"does not say {NAME}",
    f"# {NAME} 1\n": f"does not say {NAME}",
    "<html><body>vllm:num_requests_running 3</body></html>\n": f"does not say {NAME}",
    "\n": f"does not say {NAME}",
    "": "ends within a line",
    f"{NAME} 12": "ends within a line",
}


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_what_is_no_count_is_not_known(text: str) -> None:
    with pytest.raises(Unreadable) as problem:
        one(text)
    assert str(problem.value) == ODD[text]


def test_the_first_name_that_is_there_counts_and_not_both() -> None:
    names = {"running": ("new", "old")}
    assert totals(b"old 1\nnew 2\n", names) == {"running": 2}
    assert totals(b"old 1\n", names) == {"running": 1}
    with pytest.raises(Unreadable, match="has no metric for this"):
        totals(b"old 1\n", {"running": ()})


name = st.sampled_from([NAME, f"{NAME}_total", "other", "", " "])
label = st.sampled_from(["", "{}", '{e="0"}', '{e="1"}', '{e="\\""}', "{", "}", '{e="'])
value = st.one_of(
    st.integers(0, 100).map(str),
    st.floats().map(str),
    st.sampled_from(["", "-1", "1e308", "NaN", "Inf", "0x1", "1 2", "1 2 3"]),
    st.text(string.printable, max_size=5),
)
lines = st.lists(st.tuples(name, label, value).map(lambda parts: f"{parts[0]}{parts[1]} {parts[2]}"))


@given(st.one_of(lines.map("\n".join).map(str.encode), st.binary(max_size=200)), st.booleans())
def test_whatever_comes_is_a_count_or_unreadable(body: bytes, whole: bool) -> None:
    try:
        found = totals(body + b"\n" * whole, RUNNING)["running"]
    except Unreadable:
        return
    assert 0 <= found <= MOST
    assert NAME.encode() in body


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1000))))
def test_the_sum_is_right_or_it_is_said_that_two_disagree(series: list[tuple[int, int]]) -> None:
    text = "".join(f'{NAME}{{engine="{engine}"}} {count}\n' for engine, count in series)
    if not series or len(set(series)) > len(dict(series)):
        with pytest.raises(Unreadable):
            one(text)
    else:
        assert one(text) == sum(dict(series).values())


@pytest.mark.parametrize("version", [None, "0.13.0", "0.26.0", "0.33.1", "9.9.9", "nonsense"])
def test_every_version_has_names_for_all_figures(version: str | None) -> None:
    names = engine_names(version)
    counts = ["generation_tokens", "prompt_tokens", "request_success", "running", "token_seconds", "waiting"]
    assert sorted(names) == counts
    assert all(names.values())


ENGINE = (
    'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_running{engine="1"} 1.0\n'
    'vllm:num_requests_waiting{engine="0"} 2.0\nvllm:num_requests_waiting_by_reason{reason="capacity"} 90\n'
    "vllm:prompt_tokens_total 1200.0\nvllm:generation_tokens_total 340.0\n"
    'vllm:request_success_total{finished_reason="stop"} 5\nvllm:request_success_total{finished_reason="abort"} 2\n'
)


def test_an_engine_s_sample_is_of_when_it_was_asked() -> None:
    sample = engine_sample(ENGINE.encode(), 7.0, engine_names("0.33.0"))
    assert (sample.at, sample.running, sample.waiting) == (7.0, 4, 2)
    assert (sample.prompt_tokens, sample.generation_tokens, sample.finished) == (1200, 340, 7)


@pytest.mark.parametrize("line", range(ENGINE.count("\n")))
def test_an_engine_that_leaves_one_figure_out_is_not_read(line: int) -> None:
    metric = ENGINE.splitlines()[line].partition("{")[0].partition(" ")[0]
    rest = "".join(f"{text}\n" for text in ENGINE.splitlines() if not text.startswith((f"{metric}{{", f"{metric} ")))
    if metric.endswith("by_reason"):
        assert engine_sample(rest.encode(), 7.0, engine_names(None)).waiting == 2
    else:
        with pytest.raises(Unreadable, match=f"does not say {metric}$"):
            engine_sample(rest.encode(), 7.0, engine_names(None))


@pytest.mark.parametrize("version", ["0.13.0", "0.33.0"])
def test_the_seconds_between_tokens_are_read_where_an_engine_tells_of_them(version: str) -> None:
    names = engine_names(version)
    assert engine_sample(ENGINE.encode(), 7.0, names).token_seconds is None
    histogram = 'vllm:inter_token_latency_seconds_{}{{engine="0"{}}} {}\n'
    rest = histogram.format("bucket", ',le="0.01"', 3) + histogram.format("count", "", 340)
    told = ENGINE + rest + histogram.format("sum", "", 12.5)
    assert engine_sample(told.encode(), 7.0, names).token_seconds == 12.5
    with pytest.raises(Unreadable, match=r"a negative number for vllm:inter_token_latency_seconds_sum$"):
        engine_sample((ENGINE + histogram.format("sum", "", -1)).encode(), 7.0, names)


def test_an_answer_that_waited_is_of_the_end_of_the_wait_and_never_of_a_time_to_come() -> None:
    page = Gateway("", in_flight=2, held=1, arrived=9).page
    assert gateway_sample(page(0).encode(), 100.0, 101.0) == GatewaySample(100.0, 2, 1, 9)
    assert gateway_sample(page(18.5).encode(), 100.0, 119.0).at == 118.5
    assert gateway_sample(page(500).encode(), 100.0, 119.0).at == 119.0


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http()
    yield http
    await http.close()


async def test_an_engine_is_read_and_its_problem_named(http: Http) -> None:
    async with running(engine := Engine("127.0.0.1", running=3)) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        begin = monotonic()
        sample = await read_engine(http, url, engine_names(None), monotonic)
        assert (sample.running, sample.waiting) == (3, 0)
        assert begin <= sample.at <= monotonic()

        async def large(_: str) -> bytes:
            return response(b"x" * 2 * load.ENGINE_BYTES)

        async def moved(_: str) -> bytes:
            return response("", "302 Found", f"location: {url}\r\n")

        for instead, words in ((large, "answered with more than 1024 KiB"), (moved, "answered with status 302")):
            engine.instead = instead
            with pytest.raises(Unreadable, match=f"^{url} {words}$"):
                await read_engine(http, url, engine_names(None), monotonic)
        engine.instead = None
        engine.running = -1
        with pytest.raises(Unreadable, match=f"^{url} says a negative number for vllm:num_requests_running$"):
            await read_engine(http, url, engine_names(None), monotonic)


class Asking:
    """A link, and what it has said."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.said: asyncio.Queue[GatewaySample | Unreadable] = asyncio.Queue()
        self.link = GatewayLink(address, port, self.said.put_nowait, monotonic)

    async def ask(self, arrived: float | None = None) -> GatewaySample | str:
        self.link.ask(arrived)
        return await self.answer()

    async def answer(self) -> GatewaySample | str:
        said = await asyncio.wait_for(self.said.get(), 10)
        assert not self.link.open
        return str(said) if isinstance(said, Unreadable) else said


async def test_a_gateway_is_asked_on_one_connection() -> None:
    async with running(gateway := Gateway("127.0.0.1", in_flight=2, held=1, arrived=5)) as port:
        asking = Asking(port)
        for arrived in range(5, 8):
            gateway.arrived = arrived
            found = await asking.ask()
            assert isinstance(found, GatewaySample)
            assert (found.in_flight, found.held, found.arrived) == (2, 1, arrived)
        assert gateway.connections == 1
        asking.link.close()


async def test_a_connection_that_is_closed_between_two_questions_is_no_problem() -> None:
    async with running(gateway := Gateway("127.0.0.1")) as port:
        asking = Asking(port)
        await asking.ask()
        gateway.hang_up()
        assert isinstance(await asking.ask(), GatewaySample)

        async def last(_: str) -> bytes:
            return response(gateway.page(), headers="Connection: Close\r\n")

        gateway.instead = last  # as a process does that a reload has replaced
        assert isinstance(await asking.ask(), GatewaySample)
        before = gateway.connections
        assert isinstance(await asking.ask(), GatewaySample)
        assert gateway.connections == before + 1
        asking.link.close()


async def test_who_waits_for_news_gets_them() -> None:
    async with running(gateway := Gateway("127.0.0.1", arrived=3)) as port:
        asking = Asking(port)
        asking.link.ask(3)
        await gateway.until_asked(1)
        assert gateway.asked == ["/load?arrived=3"]
        assert asking.said.empty()
        gateway.tell(arrived=4, held=1)
        found = await asking.answer()
        assert isinstance(found, GatewaySample)
        assert (found.held, found.arrived) == (1, 4)
        assert found.at >= asking.link.asked
        asking.link.close()


PAGE = Gateway("").page()
ANSWERS = {
    "an error": (response(PAGE, "503 Service Unavailable"), "answered with status 503"),
    "another place": (response("", "302 Found", "location: http://127.0.0.1/\r\n"), "answered with status 302"),
    "HTML": (response("<html></html>\n"), "does not say falcon_gateway_in_flight_requests"),
    "half a page": (response(PAGE[:40]), "ends within a line"),
    "an older gateway": (
        response("falcon_gateway_held_requests 0\n"),
        "does not say falcon_gateway_in_flight_requests",
    ),
    "a lie": (
        response(Gateway("", in_flight="1e308").page()),
        "says a number that no count can be for falcon_gateway_in_flight_requests",
    ),
    "a negative lie": (
        response(Gateway("", held=-1).page()),
        "says a negative number for falcon_gateway_held_requests",
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "answered with something that is not HTTP"),
    "no status": (b"HTTP/1.1 OK\r\n\r\n", "answered with something that is not HTTP"),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n", "answered without a length"),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "answered without a length"),
    "100 MB to come": (b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n", "answered with more than 16 KiB"),
    "a head without an end": (b"HTTP/1.1 200 OK\r\nx: " + b"y" * ANSWER_BYTES, "answered with more than 16 KiB"),
    "less than it says": (None, "does not answer: connection closed"),
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_what_is_no_answer_is_a_problem_with_the_same_words_each_time(what: str) -> None:
    data, words = ANSWERS[what]
    async with running(gateway := Gateway("127.0.0.1")) as port:
        asking = Asking(port)

        async def instead(_: str) -> bytes | None:
            return data

        gateway.instead = instead
        for _ in range(2):
            assert await asking.ask() == f"http://127.0.0.1:{port}/load {words}"
        gateway.instead = None
        assert isinstance(await asking.ask(), GatewaySample), "and then it is asked again"
        asking.link.close()


async def test_an_answer_in_pieces_is_an_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in response(PAGE):
            writer.write(bytes([byte]))
            await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    asking = Asking(server.sockets[0].getsockname()[1])
    assert isinstance(await asking.ask(), GatewaySample)
    asking.link.close()
    server.close()


async def test_a_gateway_that_is_not_there() -> None:
    asking = Asking(1)
    assert await asking.ask() == "http://127.0.0.1:1/load does not answer: connection refused"
    asking = Asking(1, "::1")
    assert str(await asking.ask()).startswith("http://[::1]:1/load does not answer: ")


async def test_one_that_takes_too_long_is_given_up_and_asked_anew() -> None:
    async with running(gateway := Gateway("127.0.0.1")) as port:
        asking = Asking(port)
        asking.link.ask(0)
        await gateway.until_asked(1)
        asking.link.give_up()
        assert await asking.answer() == f"http://127.0.0.1:{port}/load does not answer: no answer in time"
        assert isinstance(await asking.ask(), GatewaySample)
        gateway.tell()  # the late answer of the first question is nobody's
        assert asking.said.empty()
        asking.link.close()


async def test_what_was_dropped_is_never_answered() -> None:
    async with running(gateway := Gateway("127.0.0.1")) as port:
        asking = Asking(port)
        asking.link.ask(0)
        await gateway.until_asked(1)
        asking.link.drop()
        assert not asking.link.open
        gateway.arrived = 7
        found = await asking.ask()
        assert isinstance(found, GatewaySample)
        assert (found.arrived, asking.said.qsize()) == (7, 0)
        asking.link.drop()
        asking.link.ask()
        asking.link.close()  # while it connects
        assert [task for task in asyncio.all_tasks() if "connect to" in task.get_name() and not task.cancelling()] == []
