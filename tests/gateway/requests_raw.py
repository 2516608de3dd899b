"""HTTP as bytes: what well-behaved clients would not send."""

import http.client
from urllib.parse import urlsplit

JSON = [("content-type", "application/json")]


def request(method, url, path, data=b"", *, headers=None):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers or JSON:
            connection.putheader(name, value)
        connection.putheader("content-length", str(len(data)))
        connection.endheaders(data)
        response = connection.getresponse()
        body = response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, body
    finally:
        connection.close()


def post(url, path, data=b"", *, headers=None):
    return request("POST", url, path, data, headers=headers)
