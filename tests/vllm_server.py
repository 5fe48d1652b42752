"""A server with vLLM's routes that samples with the local decoder, and can be made to fail: what the trainer's client is tested against."""

import base64
import io
import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText

from train.broadcast import Group
from train.engines.base import Sampling
from train.engines.local import LocalEngine
from train.forward import forward
from train.policy import Policy


class FakeVLLM:
    """``failures``: HTTP statuses that the next requests for completions get; 0: the connection is cut. ``log``: what was asked for."""

    def __init__(self, processor):
        self.processor, self.policy = processor, None
        self.version, self.failures, self.log = "default", [], []
        self.says_logprobs_less = 0.0  # what its log-probabilities are off by
        self.config = None  # of the model, where weights come by broadcast
        self.says_prompt = None  # instead of the prompt that it asks
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.reply(200, {"weight_version": fake.version, "world_size": 1})

            def do_POST(self):
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else {}
                route = self.path.strip("/")
                fake.log.append(route)
                if route == "inference/v1/generate" and fake.failures:
                    if status := fake.failures.pop(0):
                        return self.reply(status, {"error": "made to fail"})
                    self.close_connection = True
                    return self.connection.close()
                try:
                    return self.reply(200, fake.answer(route, body))
                except Exception as error:  # a mistake of this server's own: a refusal, which ends the test
                    return self.reply(400, {"error": f"the fake broke: {error!r}"})

            def reply(self, status, body):
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.lock = threading.Lock()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def restart(self):
        """As after a crash: the weights of the start, and no memory of others."""
        self.version = "default"

    def answer(self, route, body):
        if route == "collective_rpc":
            model = AutoModelForImageTextToText.from_pretrained(body["kwargs"]["weights_path"], attn_implementation="sdpa")
            self.policy = Policy(model, self.processor)
        if route == "init_weight_transfer_engine":
            info = body["init_info"]
            self.group = Group(info["address"], info["port"], 1, info["size"], torch.device("cpu"))
        if route == "update_weights":
            self.received = self.receive(body["update_info"])
        if route == "finish_weight_update":
            self.policy = Policy(self.model_of(self.received), self.processor)
        if route == "update_weight_version":
            self.version = body["new_version"]
        if route == "inference/v1/generate":
            with self.lock:
                return self.generate(body)
        return {}

    def receive(self, told):
        received = {}
        for name, dtype, shape in zip(told["names"], told["dtypes"], told["shapes"], strict=True):
            received[name] = torch.empty(shape, dtype=getattr(torch, dtype))
            self.group.broadcast(received[name])
        return received

    def model_of(self, weights):
        with tempfile.TemporaryDirectory() as folder:
            self.config.save_pretrained(folder)
            save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
            return AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="sdpa")

    @torch.no_grad()
    def generate(self, body):
        wanted = body["sampling_params"]
        images = [image_of(part["url"]) for part in body.get("content_parts", [])]
        prompt = self.expanded(body["token_ids"], images)
        sampling = Sampling(wanted["max_tokens"], wanted["temperature"], wanted["top_p"])
        (drawn,) = LocalEngine(self.policy).generate([prompt], wanted["n"], sampling, [len(self.log)])
        output = forward(self.policy, prompt, [each.ids for each in drawn], temperature=wanted["temperature"])
        choices = []
        for n, each in enumerate(drawn):
            told = output.logprobs[output.completion_index == n] - self.says_logprobs_less
            pairs = zip(each.ids.tolist(), told.tolist(), strict=True)
            content = [{"token_id": token, "logprob": logprob} for token, logprob in pairs]
            choices.append({"index": n, "token_ids": each.ids.tolist(), "logprobs": {"content": content}})
        return {"choices": choices[::-1], "prompt_token_ids": self.says_prompt or prompt.ids.tolist()}

    def expanded(self, ids, images):
        """As vLLM does it: each image's one token becomes as many as the image has."""
        parts = [{"type": "image"} for _ in images]
        like = self.policy.encode([{"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}], images)
        image_token = self.policy.model.config.image_token_id
        runs, n = [], 0
        image = like.image.tolist()
        for at, inside in enumerate(image):
            if inside:
                n += 1
            if n and (at + 1 == len(image) or not image[at + 1]):
                runs.append(n)
                n = 0
        whole = []
        for token in ids:
            whole += [token] * (runs.pop(0) if token == image_token else 1)
        whole = torch.tensor(whole)
        types = (whole == image_token).int()[None]
        inputs = {"input_ids": whole[None], "attention_mask": torch.ones_like(whole)[None], "mm_token_type_ids": types, **like.images}
        found = whole == image_token
        return type(like)("", whole, self.policy.family.positions(inputs), like.images, None, tuple(images), (), found, found.float())


def image_of(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
