"""A probe of a host that takes seconds, since libraries that fetch things retry for minutes."""

from queue import Empty, SimpleQueue
from threading import Thread

PROBE_SECONDS = 3.0  # a host that answers at all does so in less


def unreachable_reason(address: str, seconds: float = PROBE_SECONDS) -> str | None:
    """Return the reason why an address cannot be fetched now, or None if it can.

    Proxies and certificates are those of the environment. A refusal to serve without a key (401), a
    missing page (404) and "too many requests" (429) are answers: the host is there.
    """
    answer: SimpleQueue[str | None] = SimpleQueue()
    # In a thread, because no time-out of requests covers name resolution.
    Thread(target=lambda: answer.put(_ask(address, seconds)), daemon=True).start()
    try:
        return answer.get(timeout=seconds)
    except Empty:
        return f"{address} did not answer within {seconds:g} s"


def _ask(address: str, seconds: float) -> str | None:
    import requests  # late: who trains on tokens that are there asks no host

    try:
        with requests.get(address, timeout=seconds, stream=True) as answer:
            status = answer.status_code
    except requests.exceptions.ProxyError:
        return f"the proxy does not let {address} through"
    except requests.exceptions.SSLError:
        return f"the certificate of {address} is not trusted"
    except requests.exceptions.Timeout:
        return f"{address} did not answer within {seconds:g} s"
    except (ValueError, OSError):  # requests' other errors are OSErrors; ValueError: no address
        return f"{address} cannot be reached"
    return None if status in (200, 401, 404, 429) else f"{address} answered with status {status}"
