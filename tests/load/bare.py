"""What ``dl4py serve`` is measured beside: FastAPI and the same network, no more."""

import socket
import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

import dl4py


class Given(BaseModel):
    inputs: list


def main(path):
    net = dl4py.restore(path)
    app = FastAPI()

    @app.post("/predict")
    async def predict(given: Given):
        return {"outputs": net.predict(torch.tensor(given.inputs)).tolist()}

    sock = socket.socket(proto=socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    print(f"serving on :{sock.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run([sock])


if __name__ == "__main__":
    main(sys.argv[1])
