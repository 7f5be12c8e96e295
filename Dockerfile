# The environment of `make install TORCH=newest`, for GPUs:
#   docker build --tag clm-detour .
#   docker run --gpus all --ipc=host --volume $PWD:/work clm-detour run mine.yaml
FROM python:3.12-slim

# torch.compile and Triton need a compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/clm-detour
COPY . .
RUN make install TORCH=newest && rm -rf /root/.cache/pip

ENV PATH=/opt/clm-detour/.venv-newest/bin:$PATH
WORKDIR /work
ENTRYPOINT ["clm-detour"]
