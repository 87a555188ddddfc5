"""Asks the engine over loopback, past any proxy that the environment names."""

import http.client


def get(port: int, path: str, timeout: float = 2.0) -> tuple[int, str] | None:
    """Status and body, or None where nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
