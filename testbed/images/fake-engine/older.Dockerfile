# The same as an older vLLM, with that one's flags, and with its manners while it drains.
#   BASE  localhost/falcon-fake-engine
ARG BASE
FROM ${BASE}
USER 0:0
RUN PYTHONPATH=/opt/fake-engine python3 /opt/fake-engine/install.py 0.26.0
USER 2000:2000
