"""Whether a host answers, decided within seconds: libraries that fetch things retry for minutes."""

import threading

import requests

PROBE_SECONDS = 3.0  # a host that answers at all does so in less


def unanswered(address: str, seconds: float = PROBE_SECONDS) -> str | None:
    """Why an address cannot be fetched now, as the end of a sentence; None when it can.

    Proxies and certificates are those of the environment. A refusal to serve without a key (401), a
    missing page (404) and "too many requests" (429) are answers: the host is there.
    """
    found: list[str | None] = []
    # A thread, because no time-out reaches the look-up of a name, which can hang as well.
    asking = threading.Thread(target=lambda: found.append(_ask(address, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else f"{address} did not answer within {seconds:g} s"


def _ask(address: str, seconds: float) -> str | None:
    try:
        with requests.get(address, timeout=seconds, stream=True) as answer:
            status = answer.status_code
    except requests.exceptions.ProxyError:
        return f"the proxy does not let {address} through"
    except requests.exceptions.SSLError:
        return f"the certificate of {address} is not trusted"
    except requests.exceptions.Timeout:
        return f"{address} did not answer within {seconds:g} s"
    except requests.exceptions.RequestException:
        return f"{address} cannot be reached"
    return None if status in (200, 401, 404, 429) else f"{address} answered with status {status}"
