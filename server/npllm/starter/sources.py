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
        "anyio attr attrs black cherrypy click flask httpx hypothesis luigi marshmallow peewee poetry pyinfra pytest "
        "requests rich scrapy starlette textual trio typer werkzeug"
    )
)

#: Forks, ports and thin wrappers of the reserved projects: too close to them to train on.
RESERVED_KIN: frozenset[str] = frozenset(
    words(
        "aioflask asyncclick cheroot flask-openapi3 flask-peewee httpcore2 httpx2 itemadapter itemloaders niquests "
        "parsel peewee-async poetry-core quart requests-toolbelt rich-click scrapy-redis trogon w3lib"
    )
)

#: Whole packages that only the evaluation sees.
HELD_OUT: tuple[str, ...] = ("tornado", "jinja2", "tenacity", "pluggy", "sortedcontainers")

#: Packages for training, by their names on the package index. The licence of each is checked when it is read.
TRAINING: tuple[str, ...] = words(
    """
    absl-py accelerate aiofiles aiohttp aiosqlite alembic altair anthropic apscheduler argcomplete arrow
    arviz asgiref astroid asttokens async-timeout asyncpg asyncssh authlib autoflake automat babel backoff
    bandit bcrypt beautifulsoup4 billiard bleach blinker bokeh boltons botocore bottle branca build
    cachetools cattrs celery cerberus channels cloudpickle colorama colorcet configobj construct
    cookiecutter coverage croniter cryptography cssselect cython dacite daphne dash dask dataclasses-json
    datasets datasette dateparser decorator deepdiff defusedxml deprecated dill diskcache distlib
    distributed django django-filter djangorestframework dnspython docker docstring-parser docutils
    dogpile.cache dulwich einops elasticsearch eliot environs executing fabric factory-boy faker falcon
    fastapi fastcore fasteners fastjsonschema feedparser filelock fiona fire flake8 flatbuffers flax
    flit-core folium fonttools freezegun fsspec funcy furl gensim geopandas gevent gidgethub gitdb gitpython
    glom google-auth gql gradio graphene graphql-core greenlet gunicorn h11 h2 hatchling holoviews hpack
    html5lib httplib2 huey huggingface-hub humanize hvac hvplot hypercorn imageio importlib-metadata inflect
    injector invoke ipykernel ipython ipywidgets isort itsdangerous jaraco.functools jax jedi jmespath
    joblib jsonlines jsonpatch jsonpickle jsonpointer jsonschema jupyter-client jupyter-core
    jupyterlab-server keras keyring knack kombu langchain-core lark ldap3 libcst lightning-utilities limits
    logbook loguru lxml mako markdown markdown-it-py mashumaro matplotlib mccabe mdit-py-plugins mistune
    mitmproxy mkdocs mlflow mode more-itertools moto mpmath msgpack msgspec multidict mypy nameko nbclient
    nbconvert nbformat networkx nltk notebook nox numexpr numpy oauthlib openai openpyxl optax optuna orjson
    oslo.config oslo.utils packaging pandas panel papermill param paramiko parso passlib pathspec patsy pdoc
    peft pelican pendulum pexpect pika pint pip pipenv pkginfo platformdirs plotly polars pre-commit
    prettytable prompt-toolkit psutil psycopg ptpython py-cpuinfo pyarrow pyasn1 pybtex pycodestyle
    pycparser pydantic pydantic-settings pydocstyle pyfakefs pyflakes pygls pygments pyinstaller pyjwt
    pymongo pymysql pynacl pyopenssl pyparsing pyperclip pyproj pyproject-hooks pyramid pyro5 pyserial pyshp
    pytest-asyncio pytest-cov pytest-mock pytest-xdist python-dateutil python-dotenv python-jose
    python-multipart python-slugify python-socketio python-telegram-bot pytz pyviz-comms pyyaml pyzmq qtpy
    questionary rasterio ray reactivex readme-renderer redis regex requests-oauthlib responses retrying rope
    rq rsa s3transfer safetensors sanic schema scikit-image scikit-learn scipy seaborn semver
    sentence-transformers service-identity setuptools shapely simplejson smart-open soupsieve spacy sphinx
    sqlalchemy sqlglot sqlite-utils sqlmodel sqlparse statsmodels stevedore streamlit stripe structlog suds
    sympy tabulate tblib thinc tinydb tldextract tomli tomlkit toolz torchmetrics tortoise-orm towncrier tox
    trafaret traitlets traittypes transformers transitions trimesh tweepy twine twisted typeguard
    typing-extensions tzlocal ufmt ujson unidiff urllib3 uvicorn virtualenv vispy voila voluptuous wagtail
    waitress watchdog watchfiles wcwidth webargs webob websockets wheel whoosh wrapt wsproto wtforms xarray
    xlsxwriter xmltodict yapf yarl zarr zeroconf zict zipp zope.interface zstandard
    """
)

#: Whole npm packages that only the evaluation sees: one of JavaScript, one of TypeScript.
NPM_HELD_OUT: tuple[str, ...] = ("knex", "mobx")

#: npm packages for training that carry the source a person wrote, not only what a compiler or bundler made of it.
NPM_TRAINING: tuple[str, ...] = words(
    """
    @anthropic-ai/sdk @apollo/client @feathersjs/feathers @feathersjs/schema @grpc/grpc-js @hapi/hapi
    @hapi/hoek @hapi/shot @hapi/statehood @loopback/context @loopback/core @loopback/repository
    @loopback/rest @reduxjs/toolkit @tanstack/form-core @tanstack/query-core @tanstack/react-query
    @tanstack/router-core @tanstack/virtual-core @tiptap/core @xterm/xterm aframe ajv amqplib archiver
    autoprefixer ava axios body-parser bootstrap browserify bull bunyan chalk cheerio chokidar commander
    compression connect convict cors css-tree cssnano csv-parse csv-stringify debug deepmerge discord.js
    effect ejs enquirer eslint eslint-plugin-import eslint-plugin-react eslint-plugin-unicorn exceljs execa
    fastify finalhandler find-my-way fs-extra globby grunt handlebars highlight.js hls.js http-proxy immer
    istanbul-lib-instrument istanbul-lib-report istanbul-reports joi js-yaml jsdom jsonwebtoken kafkajs
    karma koa koa-router leaflet less light-my-request localforage lodash log4js lowdb luxon markdown-it
    marked mathjs matter-js mdast-util-from-markdown mdast-util-to-markdown micromark-core-commonmark mocha
    moment mongodb mongoose morgan ms multer mustache mysql2 nanoid neo4j-driver node-fetch nodemon nunjucks
    nyc ol openai opossum ora papaparse passport pdf-lib pdfkit pg pg-protocol phaser pino pino-pretty
    postcss postcss-value-parser pouchdb-core preact prismjs proj4 promise prompts prosemirror-model
    prosemirror-state prosemirror-transform prosemirror-view protobufjs pug pug-parser puppeteer-core qs
    ramda react-table redux rehype-parse remark-gfm remark-parse request reselect restify rxdb rxjs sails
    semver send serve-static shaka-player shelljs sinon source-map stylelint stylus supertest svelte tape
    terser three through2 tone type-is uglify-js underscore undici unified uuid webpack webpack-dev-server
    winston workbox-core workbox-strategies ws yargs yargs-parser zod zrender zustand
    """
)


def normalise(name: str) -> str:
    """The name of a distribution in PEP 503's normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_reserved(name: str) -> bool:
    """Whether a distribution or a top-level module belongs to the reserve list or is close kin to it."""
    return normalise(name) in RESERVED or normalise(name) in RESERVED_KIN
