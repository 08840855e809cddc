"""The local web app, ``tl-scopes app``: paste a text, see which tokens caused its prediction.

    menu        the scopes and baselines that the app offers, with their options
    workbench   models, questions and the results that are kept; knows nothing of the web
    guard       who may ask: Host and Origin, size of a request, headers of every answer
    server      routes, and errors as JSON
    page.html   app.css, app.js: the page; pictures are those of :mod:`tl_scopes.views`

Needs the extra ``app`` (starlette, uvicorn). Nothing is loaded from elsewhere, and nothing is sent anywhere.
"""
