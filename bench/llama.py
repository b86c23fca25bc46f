"""A llama-server with the tiny random model, for benchmarks against a real engine."""
import http.client
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def prepare(folder, blocks=4):
    """-> the program (fetched by e2e/fetch_llama.sh) and a model file of so many blocks made in `folder`."""
    llama = pathlib.Path(subprocess.run([ROOT / 'e2e/fetch_llama.sh'], check=True, capture_output=True,
                                        text=True).stdout.strip())
    model = folder / 'tiny.gguf'
    subprocess.run(['/usr/bin/python3', '-W', 'ignore', ROOT / 'e2e/make_tiny_model.py', model, str(blocks)],
                   check=True, env=os.environ | {'PYTHONPATH': str(llama / 'python')})
    return llama / 'llama-server', model


def start(program, model, folder, *arguments):
    """Starts it on a free port, one thread, with more arguments. -> process and port, when it is ready."""
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    log = folder / f'llama-{port}.log'
    command = [program, '-m', model, '--port', port, '-t', 1, *arguments]
    with log.open('w') as out:
        server = subprocess.Popen([str(part) for part in command], stdout=out, stderr=out)
    for _ in range(300):
        time.sleep(0.1)
        try:
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=1)
            connection.request('GET', '/health')
            if connection.getresponse().status == 200:
                return server, port
        except OSError:
            pass
        if server.poll() is not None:
            break
    server.kill()
    sys.exit(f'llama-server did not start: {log.read_text()[-1000:]}')
