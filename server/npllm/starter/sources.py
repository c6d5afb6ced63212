"""What the starter model may read, and what it must never read.

Names only: fetching is `collect`, judging a licence is `licences`. Names are compared in the normal form of
PEP 503 (lower case, runs of ``-_.`` become one ``-``).
"""

from __future__ import annotations

import re

from npllm.starter.words import words

STDLIB = "python-stdlib"

#: Projects that the demo, the tests and later evaluations replay. Never in training, tokenizer or held-out data;
#: files elsewhere that nearly equal one of theirs are dropped as well (`collect` fetches them only to compare).
RESERVED: frozenset[str] = frozenset(
    words(
        "anyio attr attrs black click flask httpx hypothesis marshmallow requests rich starlette textual trio typer "
        "werkzeug"
    )
)

#: Forks, ports and thin wrappers of the reserved projects: too close to them to train on.
RESERVED_KIN: frozenset[str] = frozenset(
    words("aioflask asyncclick flask-openapi3 httpcore2 httpx2 niquests quart requests-toolbelt rich-click trogon")
)

#: Whole packages that only the evaluation sees.
HELD_OUT: tuple[str, ...] = ("tornado", "jinja2", "tenacity", "pluggy", "sortedcontainers")

#: Packages for training, by their names on the package index. The licence of each is checked when it is read.
TRAINING: tuple[str, ...] = words(
    """
    absl-py accelerate aiofiles aiohttp aiosqlite alembic altair anthropic apscheduler argcomplete arrow arviz
    asgiref astroid asttokens async-timeout asyncpg asyncssh authlib autoflake automat babel backoff bandit
    bcrypt beautifulsoup4 billiard bleach blinker bokeh boltons botocore bottle branca build cachetools cattrs
    celery cerberus channels cherrypy cloudpickle colorama colorcet configobj construct cookiecutter coverage
    croniter cryptography cssselect cython dacite daphne dash dask dataclasses-json datasets datasette
    dateparser decorator deepdiff defusedxml deprecated dill diskcache distlib distributed django django-filter
    djangorestframework dnspython docker docstring-parser docutils dogpile.cache dulwich einops elasticsearch
    eliot environs executing fabric factory-boy faker falcon fastapi fastcore fasteners fastjsonschema
    feedparser filelock fiona fire flake8 flatbuffers flax flit-core folium fonttools freezegun fsspec funcy
    furl gensim geopandas gevent gidgethub gitdb gitpython glom google-auth gql gradio graphene graphql-core
    greenlet gunicorn h11 h2 hatchling holoviews hpack html5lib httplib2 huey huggingface-hub humanize hvac
    hvplot hypercorn imageio importlib-metadata inflect injector invoke ipykernel ipython ipywidgets isort
    itsdangerous jaraco.functools jax jedi jmespath joblib jsonlines jsonpatch jsonpickle jsonpointer jsonschema
    jupyter-client jupyter-core jupyterlab-server keras keyring knack kombu langchain-core lark ldap3 libcst
    lightning-utilities limits logbook loguru lxml mako markdown markdown-it-py mashumaro matplotlib mccabe
    mdit-py-plugins mistune mitmproxy mkdocs mlflow mode more-itertools moto mpmath msgpack msgspec multidict
    mypy nameko nbclient nbconvert nbformat networkx nltk notebook nox numexpr numpy oauthlib openai openpyxl
    optax optuna orjson oslo.config oslo.utils packaging pandas panel papermill param paramiko parso passlib
    pathspec patsy pdoc peewee peft pelican pendulum pexpect pika pint pip pipenv pkginfo platformdirs plotly
    poetry poetry-core polars pre-commit prettytable prompt-toolkit psutil psycopg ptpython py-cpuinfo pyarrow
    pyasn1 pybtex pycodestyle pycparser pydantic pydantic-settings pydocstyle pyfakefs pyflakes pygls pygments
    pyinstaller pyjwt pymongo pymysql pynacl pyopenssl pyparsing pyperclip pyproj pyproject-hooks pyramid pyro5
    pyserial pyshp pytest pytest-asyncio pytest-cov pytest-mock pytest-xdist python-dateutil python-dotenv
    python-jose python-multipart python-slugify python-socketio python-telegram-bot pytz pyviz-comms pyyaml
    pyzmq qtpy questionary rasterio ray reactivex readme-renderer redis regex requests-oauthlib responses
    retrying rope rq rsa s3transfer safetensors sanic schema scikit-image scikit-learn scipy scrapy seaborn
    semver sentence-transformers service-identity setuptools shapely simplejson smart-open soupsieve spacy
    sphinx sqlalchemy sqlglot sqlite-utils sqlmodel sqlparse statsmodels stevedore streamlit stripe structlog
    suds sympy tabulate tblib thinc tinydb tldextract tomli tomlkit toolz torchmetrics tortoise-orm towncrier
    tox trafaret traitlets traittypes transformers transitions trimesh tweepy twine twisted typeguard
    typing-extensions tzlocal ufmt ujson unidiff urllib3 uvicorn virtualenv vispy voila voluptuous w3lib wagtail
    waitress watchdog watchfiles wcwidth webargs webob websockets wheel whoosh wrapt wsproto wtforms xarray
    xlsxwriter xmltodict yapf yarl zarr zeroconf zict zipp zope.interface zstandard
    """
)


def normalise(name: str) -> str:
    """The name of a distribution in PEP 503's normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_reserved(name: str) -> bool:
    """Whether a distribution or a top-level module belongs to the reserve list or is close kin to it."""
    return normalise(name) in RESERVED or normalise(name) in RESERVED_KIN
