# The base install on a CPU, with the studio as the default command:
#   docker build -t latentscore .
#   docker run --rm -p 127.0.0.1:8765:8765 -e STUDIO_TOKEN=choose-a-long-one -v "$PWD/data_work:/work/data_work" latentscore
#   then open http://127.0.0.1:8765/#token=choose-a-long-one
# Any other command: docker run --rm -v "$PWD:/work" latentscore lsdata configs "slow rain" --audio out/
FROM python:3.11-slim

WORKDIR /opt/latentscore
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir -c constraints.txt . \
    # The synthesizer's loops are compiled here, not at the first sound. Another kind of CPU compiles them again.
    && python -c "import latentscore; latentscore.prefetch()"

WORKDIR /work
EXPOSE 8765
CMD ["sh", "-c", "exec lsdata studio --no-open --host 0.0.0.0 --token \"${STUDIO_TOKEN:?set it with -e STUDIO_TOKEN=...}\""]
