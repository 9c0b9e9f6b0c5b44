"""A hub on this machine for cmd_pull.sh: python3 pull_server.py FOLDER PORTFILE. Serves the files of FOLDER as the model
"org/model" in Hugging Face's layout, with faults by the first part of the path: /plain, /cut (each connection ends after
40,000 bytes, the list's first one at once), /drop (never gives a byte of a file), /wrong (one byte is another),
/norange (always from the front; the first connections are cut), /redirect, /evil (names that lead elsewhere), /noise
(the list is no JSON)."""

import hashlib
import http.server
import json
import pathlib
import sys

FOLDER = pathlib.Path(sys.argv[1])
seen = {}


def entry(path):
    data = path.read_bytes()
    row = {"type": "file", "path": path.name, "size": len(data), "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    if len(data) > 20000:
        row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        row["oid"] = "0" * 40
    return row


class Hub(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, status, data, promise=None, headers=()):
        self.send_response(status)
        self.send_header("Content-Length", str(promise if promise is not None else len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def do_GET(self):
        _, fault, *rest = self.path.split("?")[0].split("/")
        count = seen[self.path] = seen.get(self.path, 0) + 1
        if rest[:1] == ["api"]:
            rows = [entry(p) for p in sorted(FOLDER.iterdir())] + [{"type": "directory", "path": "onnx", "size": 0, "oid": "0" * 40}]
            if fault == "evil":
                rows.append({**rows[0], "path": "model/../../evil.safetensors"})
            data = b"<html>" if fault == "noise" else json.dumps(rows).encode()
            if rest[2:4] != ["org", "model"]:
                return self.answer(404, b"{}")
            return self.answer(200, b"" if fault == "cut" and count == 1 else data, len(data))
        if fault == "redirect" and rest[0] != "blob":
            return self.answer(302, b"", headers=[("Location", "/redirect/blob/" + rest[-1])])
        data = bytearray((FOLDER / rest[-1]).read_bytes())
        if fault == "wrong":
            data[len(data) // 2] ^= 1
        begin = 0
        asked = self.headers.get("Range")
        if asked and fault != "norange":
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(data):
                return self.answer(416, b"")
        body = bytes(data[begin:])
        some = body[:40000] if fault == "cut" or (fault == "norange" and count < 3) else b"" if fault == "drop" else body
        headers = [("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")] if begin else []
        self.answer(206 if begin else 200, some, len(body), headers)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
pathlib.Path(sys.argv[2]).write_text(str(server.server_port))
server.serve_forever()
