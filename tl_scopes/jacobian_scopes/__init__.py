"""The public scopes. (Not ``scopes``: importing that folder would hide the function ``tl_scopes.scopes``.)"""
